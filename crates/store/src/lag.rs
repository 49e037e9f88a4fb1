//! How long settlements wait for their commit: an upper bound, without a stamp on each of them.

use std::{collections::VecDeque, time::Instant};

/// Marks kept: one a batch, and hardly any settlement waits for more batches than two.
const MARKS_MAX: usize = 64;

/// Settlements are numbered in the order of the queue. A mark says how many had been sent by
/// when, so that a settlement with a higher number was sent after it.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// Taken out of the queue so far.
    taken: u64,
    marks: VecDeque<Mark>,
}

#[derive(Debug)]
struct Mark {
    at: Instant,
    sent: u64,
}

impl Lag {
    /// At this moment so many wait in the queue.
    pub(crate) fn waiting(&mut self, count: usize, at: Instant) {
        let sent = self.taken.saturating_add(wide(count));
        // A later mark with the same number says more.
        while self.marks.back().is_some_and(|mark| mark.sent >= sent) {
            self.marks.pop_back();
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { at, sent });
    }

    /// So many were taken out of the queue. Tells since when, at most, the first of them waited.
    pub(crate) fn taken(&mut self, count: usize, now: Instant) -> Instant {
        let first = self.taken;
        self.taken = self.taken.saturating_add(wide(count));
        while let [_, second, ..] = self.marks.make_contiguous()
            && second.sent <= first
        {
            self.marks.pop_front();
        }
        let since = self.marks.front().filter(|mark| mark.sent <= first);
        since.map_or(now, |mark| mark.at)
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_came_to_an_idle_journal_waits_from_then_on() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.waiting(0, start);
        lag.waiting(0, start + ms(500));
        assert_eq!(lag.taken(3, start + ms(500)), start + ms(500));
    }

    #[test]
    fn what_came_during_a_batch_waits_from_its_begin_at_most() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.waiting(0, start);
        assert_eq!(lag.taken(10, start), start);
        // The batch of ten is written; meanwhile 30 came, of which 20 are taken next.
        lag.waiting(0, start);
        lag.waiting(30, start + ms(8));
        assert_eq!(lag.taken(20, start + ms(8)), start);
        lag.waiting(50, start + ms(16));
        // The last ten of the thirty had been sent by the first mark's end.
        assert_eq!(lag.taken(10, start + ms(16)), start);
        // The fifty came after the second batch was begun.
        assert_eq!(lag.taken(10, start + ms(24)), start + ms(8));
    }

    #[test]
    fn a_queue_that_never_empties_keeps_no_more_than_some_marks() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        for round in 0..1000 {
            lag.waiting(100, start + ms(round));
            let since = lag.taken(50, start + ms(round));
            assert!(since + ms(3) >= start + ms(round), "{round}");
        }
        assert!(lag.marks.len() <= MARKS_MAX);
    }
}
