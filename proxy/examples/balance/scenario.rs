//! Services with four good endpoints and a bad one.

use std::time::Duration;

/// What an endpoint makes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    /// Answers after a random (exponential) time with this mean.
    Steady(Duration),
    /// Answers 503 at once.
    Failing,
    /// Takes requests and never answers: the client's patience ends.
    Hung,
    /// Appears when the run has begun and takes `factor` times as long as a good one for its first
    /// seconds: a cold cache, a compiler that has not seen the code yet.
    Cold {
        appears: Duration,
        warm_after: Duration,
        factor: u32,
    },
    /// A good one that answers 429 at once when it has more than this in flight.
    Limited(usize),
}

/// A Service and its load.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) endpoints: Vec<Behaviour>,
    /// Requests a second, at random times that do not depend on the answers.
    pub(crate) rate: f64,
    pub(crate) requests: usize,
    /// What the bad endpoint should get of the requests at most.
    pub(crate) at_most: f64,
}

/// A good endpoint's mean.
pub(crate) const GOOD: Duration = Duration::from_millis(10);

/// Requests that an endpoint works on at a time; others wait in line.
pub(crate) const SLOTS: usize = 8;

/// How long a client waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// All of them; the bad endpoint is the last.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let cold = Behaviour::Cold {
        appears: Duration::from_secs(2),
        warm_after: Duration::from_secs(4),
        factor: 20,
    };
    [
        ("slow", Behaviour::Steady(GOOD * 10), 0.05),
        ("failing", Behaviour::Failing, 0.01),
        ("hung", Behaviour::Hung, 0.01),
        ("cold", cold, 0.2),
        ("limited", Behaviour::Limited(2), 0.2),
    ]
    .into_iter()
    .map(|(name, bad, at_most)| Scenario {
        name,
        endpoints: [vec![Behaviour::Steady(GOOD); 4], vec![bad]].concat(),
        rate: 1_000.0,
        requests: 12_000,
        at_most,
    })
    .collect()
}
