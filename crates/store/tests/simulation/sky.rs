//! The weather of a run: delays, faults, outages and the jumps of the database's clock.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use store::simulation::{Fate, Fault, Step, Weather};
use tokio::time::Instant;

use crate::{dice::Dice, trace::Trace};

/// The node of whoever judges: it has no weather.
pub(crate) const JUDGE: u32 = 0;
/// 2026-01-01, in microseconds.
const START_US: i64 = 1_767_225_600_000_000;
/// After a fault the journal pauses before it tries again, and has something to catch up with.
const RECOVERY: Duration = Duration::from_millis(2500);

/// The sky.
#[derive(Debug)]
pub(crate) struct Sky {
    epoch: Instant,
    trace: Arc<Trace>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    /// Faults in 10,000 steps.
    faults: u64,
    jump_us: i64,
    outage: Option<(Instant, Fault)>,
    /// When something was wrong, from and to.
    troubles: Vec<(Instant, Instant)>,
    clear: bool,
}

impl Sky {
    pub(crate) fn new(mut dice: Dice, trace: Arc<Trace>) -> Self {
        // A third of the seeds has perfect links, so that nothing excuses a mistake.
        let faults = match dice.of(0..6) {
            0 | 1 => 0,
            2 | 3 => 4,
            4 => 20,
            _ => 80,
        };
        Self {
            epoch: Instant::now(),
            trace,
            state: Mutex::new(State {
                dice,
                faults,
                jump_us: 0,
                outage: None,
                troubles: Vec::new(),
                clear: false,
            }),
        }
    }

    /// Moves the wall clocks.
    pub(crate) fn jump(&self, by: Duration, forth: bool) {
        let us = i64::try_from(by.as_micros()).unwrap();
        self.trace
            .say(format!("the wall clock jumps {by:?} forth: {forth}"));
        self.state.lock().unwrap().jump_us += if forth { us } else { -us };
    }

    /// The database is away for a while.
    pub(crate) fn outage(&self, time: Duration) {
        self.trace.say(format!("the database is away for {time:?}"));
        let until = Instant::now() + time;
        let mut state = self.state.lock().unwrap();
        let fault = if state.dice.chance(5000) {
            Fault::Refused
        } else {
            Fault::Silence
        };
        state.outage = Some((until, fault));
        drop(state);
        // Silence is noticed by a timeout that may begin at its very end.
        let heard = if fault == Fault::Silence {
            Duration::from_secs(16)
        } else {
            Duration::ZERO
        };
        self.trouble(time + heard);
    }

    /// Something is wrong from now for so long.
    pub(crate) fn trouble(&self, time: Duration) {
        let now = Instant::now();
        self.state
            .lock()
            .unwrap()
            .troubles
            .push((now, now + time + RECOVERY));
    }

    /// The end of the run: no more faults.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock().unwrap();
        state.clear = true;
        state.outage = None;
    }

    /// Whether nothing was wrong between the two.
    pub(crate) fn calm(&self, from: Instant, to: Instant) -> bool {
        let state = self.state.lock().unwrap();
        state.troubles.iter().all(|(a, b)| *b < from || *a > to)
    }

    pub(crate) fn wall_us(&self) -> i64 {
        let passed = i64::try_from(self.epoch.elapsed().as_micros()).unwrap();
        START_US + passed + self.state.lock().unwrap().jump_us
    }
}

impl Weather for Sky {
    fn now_us(&self) -> i64 {
        self.wall_us()
    }

    fn fate(&self, node: u32, step: Step) -> Fate {
        if node == JUDGE {
            return Fate::default();
        }
        let mut state = self.state.lock().unwrap();
        let mut fate = Fate::default();
        let slow = match step {
            Step::Commit => true,
            Step::Connect | Step::Begin | Step::Notice => state.dice.chance(3000),
            Step::Statement => state.dice.chance(300),
        };
        if slow {
            fate.before = state.dice.ms(0..3);
            fate.after = state.dice.ms(0..3);
        }
        if state.clear {
            return fate;
        }
        if let Some((until, fault)) = state.outage {
            if Instant::now() < until {
                fate.fault = Some(fault);
                return fate;
            }
            state.outage = None;
        }
        let faults = state.faults;
        if step == Step::Notice {
            // A lost notice is no trouble: watchers look by themselves.
            let lost = state.dice.chance(1000);
            fate.fault = lost.then_some(Fault::Refused);
            return fate;
        }
        let often = if step == Step::Commit {
            faults * 5
        } else {
            faults
        };
        if !state.dice.chance(often) {
            return fate;
        }
        let kind = state.dice.of(0..10);
        let fault = match (step, kind) {
            (Step::Commit, 0..4) => Fault::AnswerLost,
            (Step::Commit, 4..6) => Fault::Late(state.dice.ms(1..6000)),
            (_, 9) => Fault::Silence,
            (Step::Statement, 7..9) => Fault::AnswerLost,
            _ => Fault::Refused,
        };
        fate.fault = Some(fault);
        drop(state);
        self.trace.say(format!("node {node}: {step:?} {fault:?}"));
        self.trouble(match fault {
            Fault::Refused | Fault::AnswerLost => Duration::from_millis(100),
            Fault::Late(by) => by,
            Fault::Silence => Duration::from_secs(16),
        });
        fate
    }

    fn commits_anyway(&self, _node: u32) -> bool {
        self.state.lock().unwrap().dice.chance(5000)
    }

    fn lingers(&self, node: u32) -> Duration {
        let mut state = self.state.lock().unwrap();
        if state.clear || !state.dice.chance(2000) {
            return Duration::ZERO;
        }
        let time = state.dice.ms(100..8000);
        drop(state);
        self.trace
            .say(format!("node {node}: its transaction lingers for {time:?}"));
        self.trouble(time);
        time
    }
}
