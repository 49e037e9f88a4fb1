//! The load: what one run was asked to do, random choices, and what its tasks saw.

use std::time::{Duration, Instant};

use crate::{cpu::Used, plan::Spread};

/// What a request sets aside, in nano-credits.
pub(crate) const HOLD: i64 = 1_000;

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests at a time.
    pub(crate) tasks: usize,
    /// How they spread.
    pub(crate) spread: Spread,
    /// For how long new ones start.
    pub(crate) time: Duration,
    /// Requests a second of all tasks together; without it, as many as there can be.
    pub(crate) pace: Option<f64>,
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Requests that were held and settled, all of them committed at the end.
    pub(crate) requests: u64,
    /// Until the last of them was committed.
    pub(crate) took: Duration,
    /// Times to a hold where a lease covered it; of the baseline, all.
    pub(crate) covered: Vec<Duration>,
    /// Times to a hold that had to ask the database first.
    pub(crate) fetched: Vec<Duration>,
    /// From a settlement's sending to the moment when another connection saw it.
    pub(crate) lag: Vec<Duration>,
    /// What the ledger says of that.
    pub(crate) lag_said: Vec<Duration>,
    /// Processor time.
    pub(crate) used: Used,
}

impl Seen {
    /// Takes in what another task saw.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.covered.extend(other.covered);
        self.fetched.extend(other.fetched);
        self.lag.extend(other.lag);
        self.lag_said.extend(other.lag_said);
    }
}

/// Waits for the turns of one task, which are evenly spread.
pub(crate) struct Turns {
    until: Instant,
    next: Instant,
    every: Option<Duration>,
}

impl Turns {
    /// The turns of a load's task, counted from zero.
    pub(crate) fn of(load: &Load, task: usize) -> Self {
        let now = Instant::now();
        let every = load
            .pace
            .and_then(|pace| Duration::try_from_secs_f64(load.tasks as f64 / pace).ok());
        let share = task as f64 / load.tasks as f64;
        Self {
            until: now + load.time,
            next: now + every.unwrap_or_default().mul_f64(share),
            every,
        }
    }

    /// Waits for the next turn; false when the time is over.
    pub(crate) async fn next(&mut self) -> bool {
        match self.every {
            // What a request would wait for is left out, so let others have their turn.
            None => tokio::task::yield_now().await,
            Some(every) => {
                tokio::time::sleep_until(self.next.into()).await;
                self.next += every;
            }
        }
        Instant::now() < self.until
    }
}

/// Small and good enough to choose accounts by.
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub(crate) const fn new(seed: usize) -> Self {
        Self((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next number (splitmix64).
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// What a request costs, in nano-credits and in tokens: 200 to 1000.
    pub(crate) const fn cost(&mut self) -> u32 {
        200 + (self.next() % 801) as u32
    }
}
