//! Randomness of a seed: SplitMix64, written out so that a seed means the same run with every version of every library.

use std::{ops::Range, time::Duration};

/// A source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Dice of their own for somebody.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn of(&mut self, range: Range<i64>) -> i64 {
        let width = u64::try_from(range.end - range.start).unwrap().max(1);
        range.start + i64::try_from(self.next() % width).unwrap()
    }

    /// True so many times in 10,000.
    pub(crate) fn chance(&mut self, per_10_000: u64) -> bool {
        self.next() % 10_000 < per_10_000
    }

    pub(crate) fn ms(&mut self, range: Range<i64>) -> Duration {
        Duration::from_millis(u64::try_from(self.of(range)).unwrap())
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.next() % u64::try_from(from.len()).unwrap();
        &from[usize::try_from(index).unwrap()]
    }
}
