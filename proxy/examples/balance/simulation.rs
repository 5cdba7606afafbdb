//! A Service under load, event by event.
//!
//! The balancer, its estimates and its ejection are the real ones; what is simulated is the load
//! and the endpoints. Requests come at random times that do not depend on the answers (an open
//! loop), so an endpoint that is too slow for its share gets a line that grows.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealane_config::model::{Balancing, Endpoint};
use sealane_proxy::balance::{Balancer, Flight};

use crate::scenario::{Behaviour, GOOD, PATIENCE, SLOTS, Scenario};

/// How endpoints are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Sealane,
    RoundRobin,
    Random,
}

/// Ours first.
pub(crate) const POLICIES: [Policy; 3] = [Policy::Sealane, Policy::RoundRobin, Policy::Random];

impl Policy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sealane => "sealane",
            Self::RoundRobin => "round robin",
            Self::Random => "random",
        }
    }
}

/// What the clients saw.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Time until a good answer; `None` if that many requests got none.
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    /// Share of the requests that got no good answer.
    pub(crate) failed: f64,
    /// What each endpoint got of the requests.
    pub(crate) shares: Vec<f64>,
}

/// A request whose client still waits.
#[derive(Debug)]
struct Job {
    sent: Duration,
    flight: Flight,
}

/// An endpoint with a line in front of it.
struct Server {
    behaviour: Behaviour,
    working: usize,
    /// Numbers of jobs; their clients may have gone.
    waiting: VecDeque<usize>,
    taken: usize,
}

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// This endpoint has done its work, and the next in line gets its turn.
    Worked(usize),
    /// The endpoint refuses.
    Refused,
    /// The client waits no longer.
    GivenUp,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    policy: Policy,
    balancer: Balancer,
    /// For the load and the endpoints.
    chance: Balancer,
    turn: Cell<usize>,
    endpoints: Vec<Arc<Endpoint>>,
    servers: Vec<Server>,
    /// By number, which is the order of arrival.
    jobs: Vec<Option<Job>>,
    /// Time, place in the order in which they were planned, job.
    planned: BinaryHeap<Reverse<(Duration, usize, usize, Event)>>,
    plans: usize,
    now: Duration,
    times: Vec<Option<Duration>>,
}

/// Runs a scenario. The runtime's clock has to be paused.
pub(crate) async fn simulate(scenario: &Scenario, policy: Policy, seed: u64) -> Outcome {
    let endpoint = |i| Arc::new(Endpoint::at(SocketAddr::from(([10, 244, 0, 1], 8000 + i))));
    let server = |behaviour: &Behaviour| Server {
        behaviour: *behaviour,
        working: 0,
        waiting: VecDeque::new(),
        taken: 0,
    };
    let count = u16::try_from(scenario.endpoints.len()).expect("a handful");
    let mut simulation = Simulation {
        scenario,
        policy,
        balancer: Balancer::seeded(seed),
        chance: Balancer::seeded(seed ^ 0x5ea1_a9e0),
        turn: Cell::new(0),
        endpoints: (0..count).map(endpoint).collect(),
        servers: scenario.endpoints.iter().map(server).collect(),
        jobs: Vec::with_capacity(scenario.requests),
        planned: BinaryHeap::new(),
        plans: 0,
        now: Duration::ZERO,
        times: Vec::with_capacity(scenario.requests),
    };
    simulation.run().await;
    simulation.outcome()
}

impl Simulation<'_> {
    async fn run(&mut self) {
        sealane_proxy::testing::advance_to_tick().await;
        let pause = Duration::from_secs_f64(1.0 / self.scenario.rate);
        let mut next = self.random(pause);
        loop {
            let arrives = self.jobs.len() < self.scenario.requests;
            let planned = self.planned.peek().map(|Reverse((at, ..))| *at);
            if arrives && planned.is_none_or(|at| next <= at) {
                self.advance(next).await;
                self.arrive();
                next += self.random(pause);
            } else if let Some(Reverse((at, _, job, event))) = self.planned.pop() {
                self.advance(at).await;
                self.happen(job, event);
            } else {
                return;
            }
        }
    }

    async fn advance(&mut self, to: Duration) {
        tokio::time::advance(to.saturating_sub(self.now)).await;
        self.now = to;
    }

    /// Exponential with this mean.
    fn random(&self, mean: Duration) -> Duration {
        // 53 bits, never 0.
        let uniform = ((self.chance.random() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        mean.mul_f64(-uniform.ln())
    }

    fn plan(&mut self, after: Duration, job: usize, event: Event) {
        self.plans += 1;
        let planned = (self.now + after, self.plans, job, event);
        self.planned.push(Reverse(planned));
    }

    /// Those that there are by now; only the last one may be missing.
    fn present(&self) -> &[Arc<Endpoint>] {
        let is_missing = |server: &&Server| matches!(server.behaviour, Behaviour::Cold { appears, .. } if self.now < appears);
        let missing = self.servers.iter().filter(is_missing).count();
        &self.endpoints[..self.endpoints.len() - missing]
    }

    fn pick(&self) -> usize {
        let present = self.present();
        match self.policy {
            Policy::Sealane => {
                let picked = self
                    .balancer
                    .pick(present, &[], &Balancing::DEFAULT)
                    .expect("never empty");
                let place = present.iter().position(|e| Arc::ptr_eq(e, picked));
                place.expect("one of them")
            }
            Policy::RoundRobin => {
                let turn = self.turn.get();
                self.turn.set(turn + 1);
                turn % present.len()
            }
            Policy::Random => (self.balancer.random() % present.len() as u64) as usize,
        }
    }

    fn arrive(&mut self) {
        let index = self.pick();
        let number = self.jobs.len();
        self.jobs.push(Some(Job {
            sent: self.now,
            flight: Flight::start(&self.endpoints[index]),
        }));
        let server = &mut self.servers[index];
        server.taken += 1;
        let refuses = match server.behaviour {
            Behaviour::Failing => true,
            Behaviour::Limited(limit) => server.working >= limit,
            Behaviour::Steady(_) | Behaviour::Hung | Behaviour::Cold { .. } => false,
        };
        if refuses {
            self.plan(Duration::from_millis(1), number, Event::Refused);
            return;
        }
        if server.working < SLOTS {
            self.start(number, index);
        } else {
            server.waiting.push_back(number);
        }
        self.plan(PATIENCE, number, Event::GivenUp);
    }

    fn start(&mut self, number: usize, index: usize) {
        self.servers[index].working += 1;
        let mean = match self.servers[index].behaviour {
            Behaviour::Steady(mean) => mean,
            Behaviour::Cold {
                warm_after, factor, ..
            } if self.now < warm_after => GOOD * factor,
            Behaviour::Limited(_) | Behaviour::Cold { .. } => GOOD,
            Behaviour::Failing | Behaviour::Hung => return,
        };
        let time = self.random(mean);
        self.plan(time, number, Event::Worked(index));
    }

    fn happen(&mut self, number: usize, event: Event) {
        if let Event::Worked(index) = event {
            self.servers[index].working -= 1;
            self.next_in_line(index);
        }
        let Some(job) = self.jobs[number].take() else {
            return;
        };
        let elapsed = self.now - job.sent;
        let time = matches!(event, Event::Worked(_)).then_some(elapsed);
        match time {
            Some(time) => job.flight.succeeded(time),
            None => job.flight.failed(self.present(), &Balancing::DEFAULT),
        }
        self.times.push(time);
    }

    /// Nobody works for clients that have gone.
    fn next_in_line(&mut self, index: usize) {
        while let Some(number) = self.servers[index].waiting.pop_front() {
            if self.jobs[number].is_some() {
                return self.start(number, index);
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        // No answer is later than any answer.
        self.times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
        let requests = self.times.len();
        let at = |share: f64| self.times[(requests as f64 * share) as usize];
        let failed = self.times.iter().filter(|time| time.is_none()).count();
        let share = |server: &Server| server.taken as f64 / requests as f64;
        Outcome {
            p50: at(0.5),
            p99: at(0.99),
            failed: failed as f64 / requests as f64,
            shares: self.servers.iter().map(share).collect(),
        }
    }
}
