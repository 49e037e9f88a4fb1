//! Chance that can be thrown again: the same seed gives the same numbers.

use std::{env, time::Duration};

/// The seed of a run may be given by this variable; else it is the test's own.
const SEED_VARIABLE: &str = "TOLLWAY_SEED";

/// A generator (splitmix64): quick, and good enough to choose who is next.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that was asked for, or this one.
    ///
    /// # Panics
    /// What was asked for is no number.
    #[must_use]
    pub fn seed_or(seed: u64) -> u64 {
        env::var(SEED_VARIABLE).map_or(seed, |text| text.parse().expect("TOLLWAY_SEED is a number"))
    }

    /// Another one, whose throws say nothing about these.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`, which is not zero.
    pub fn below(&mut self, count: u64) -> u64 {
        self.number() % count
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    ///
    /// # Panics
    /// There are none.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let count = u64::try_from(all.len()).unwrap();
        &all[usize::try_from(self.below(count)).unwrap()]
    }

    /// A time between these, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
