//! Load that can be held up and let go on.
//!
//! A machine that does other things as well is faster now and slower then, and mostly within a second:
//! of two loads, one behind the other, the same proxy took 10 to 15 % more or less of its CPU. So all
//! peers have their load at once, and are let at it in turn for [`SLICE`], which is long beside what
//! fills a CPU's caches.

use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, sleep};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long one peer has its load before the next has.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// In front of one load. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
struct State {
    is_open: bool,
    /// The program that makes the load, if it is one.
    program: Option<OwnedFd>,
}

impl Gate {
    pub(crate) fn new(is_open: bool) -> Self {
        let state = State {
            is_open,
            program: None,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, is_open: bool) {
        let mut state = self.state();
        state.is_open = is_open;
        state.signal();
        self.0.1.notify_all();
    }

    /// Waits until it is open. All tasks of the thread wait with the one that asks.
    pub(crate) fn pass(&self) {
        let mut state = self.state();
        while !state.is_open {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs a program to its end, which goes on only while this is open.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn output(&self, command: &mut Command) -> anyhow::Result<Output> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        {
            let mut state = self.state();
            state.program = Some(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?);
            state.signal();
        }
        let output = child.wait_with_output();
        self.state().program = None;
        Ok(output?)
    }
}

impl State {
    /// Stops or continues the program.
    fn signal(&self) {
        let signal = if self.is_open {
            Signal::CONT
        } else {
            Signal::STOP
        };
        if let Some(program) = &self.program {
            // One that has ended needs neither.
            let _ = pidfd_send_signal(program, signal);
        }
    }
}

/// Runs loads at once, of which each goes on while its gate is open, one after the other and back
/// again, so that who comes first has no part in it.
pub(crate) fn alternate<T: Send>(loads: Vec<impl FnOnce(Gate) -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let start = |load| {
            let gate = Gate::new(false);
            let its = gate.clone();
            (gate, scope.spawn(move || load_at(load, its)))
        };
        let mut running: Vec<_> = loads.into_iter().map(start).collect();
        let mut order: Vec<usize> = (0..running.len()).collect();
        while running.iter().any(|(_, load)| !load.is_finished()) {
            for &at in &order {
                let (gate, load) = &running[at];
                if !load.is_finished() {
                    gate.set(true);
                    sleep(SLICE);
                    gate.set(false);
                }
            }
            order.reverse();
        }
        let results = running.drain(..).map(|(_, load)| load.join());
        let results = results.map(|ended| match ended {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}

fn load_at<T>(load: impl FnOnce(Gate) -> T, gate: Gate) -> T {
    gate.pass();
    load(gate)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn one_load_goes_on_at_a_time() {
        let load = |gate: Gate| {
            let mut steps = 0;
            let begun = Instant::now();
            while begun.elapsed() < SLICE * 12 {
                gate.pass();
                sleep(Duration::from_millis(1));
                steps += 1;
            }
            steps
        };
        let begun = Instant::now();
        let steps = alternate(vec![load, load, load]);
        // A step may be in the middle when its gate closes and the next one opens.
        let most = (begun.elapsed() * 11 / 10).as_millis();
        let all: u128 = steps.iter().sum();
        assert!(all <= most, "in turn: {steps:?} in {most} ms");
        assert!(steps.iter().all(|steps| *steps > 0), "{steps:?}");
    }

    #[test]
    fn a_program_is_held_up_and_ends_all_the_same() {
        let programs = alternate(vec![
            |gate: Gate| gate.output(Command::new("sh").args(["-c", "echo said; echo that >&2"])),
            |gate: Gate| gate.output(Command::new("sh").args(["-c", "sleep 0.2; exit 3"])),
        ]);
        let [Ok(first), Ok(second)] = &programs[..] else {
            panic!("{programs:?}");
        };
        assert_eq!(
            (&*first.stdout, &*first.stderr),
            (&b"said\n"[..], &b"that\n"[..])
        );
        assert_eq!(second.status.code(), Some(3));
        let missing = alternate(vec![|gate: Gate| {
            gate.output(&mut Command::new("/nowhere"))
        }]);
        assert!(missing[0].is_err());
    }
}
