//! What is learned of one model's tokenizer: two factors that follow its answers, and which requests are counted for it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use store::{NewTokenFactor, TokenFactor};
use tokens::{Batch, Estimate, Factor, Lesson, Side, Tokenizer};

/// A batch of so many lessons is worth writing down.
const BATCH_LESSONS_MIN: usize = 8;
/// A smaller one waits so long for more: the middle of a few is easily led astray.
const BATCH_AGE_MAX: Duration = Duration::from_secs(600);
/// So many requests are counted at once before the rate applies: a new model is known soon.
const BURST: u64 = 50;

/// What is learned of one model. Everything that counts for the model shares it.
#[derive(Debug)]
pub struct Learning {
    provider: Arc<str>,
    model: Arc<str>,
    tokenizer: Tokenizer,
    /// False where the tokenizer is the model's own: there is nothing to correct.
    follows: bool,
    prompt: Learned,
    completion: Learned,
    born: Instant,
    /// When the requests counted so far would have come at an even rate, in milliseconds since
    /// `born`.
    next_ms: AtomicU64,
}

/// One side.
#[derive(Debug)]
struct Learned {
    /// What to count with, in thousandths.
    factor: AtomicU32,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// What all replicas together know.
    known: Option<Known>,
    /// What was learned here since.
    batch: Batch,
    batch_began: Option<Instant>,
}

/// What all replicas together know of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The estimate.
    pub estimate: Estimate,
    /// All answers that were ever compared.
    pub compared: u64,
    /// When it was last added to.
    pub updated_at: Timestamp,
}

/// One side, for whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is counted with.
    pub factor: Factor,
    /// What all replicas together know.
    pub known: Option<Known>,
    /// Answers compared here that are not written down yet.
    pub waiting: usize,
}

/// A batch on its way to the store.
#[derive(Debug)]
pub struct Told<'a> {
    learning: &'a Learning,
    side: Side,
    batch: Batch,
    estimate: Estimate,
}

impl Learning {
    /// Nothing is known yet: the configured factor is counted with. `follows` is false where the
    /// tokenizer is the model's own.
    #[must_use]
    pub fn new(
        provider: Arc<str>,
        model: Arc<str>,
        tokenizer: Tokenizer,
        follows: bool,
        now: Instant,
    ) -> Self {
        let side = || Learned {
            factor: AtomicU32::new(tokenizer.factor().thousandths()),
            progress: Mutex::default(),
        };
        Self {
            provider,
            model,
            tokenizer,
            follows,
            prompt: side(),
            completion: side(),
            born: now,
            next_ms: AtomicU64::new(0),
        }
    }

    /// The provider that serves the model.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The model as configured.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The tokenizer as configured.
    #[must_use]
    pub const fn tokenizer(&self) -> Tokenizer {
        self.tokenizer
    }

    /// Whether answers correct the factor.
    #[must_use]
    pub const fn follows(&self) -> bool {
        self.follows
    }

    /// What to count a side with now.
    #[must_use]
    pub fn factor(&self, side: Side) -> Factor {
        let thousandths = self.side(side).factor.load(Ordering::Relaxed);
        Factor::new(thousandths).unwrap_or(self.tokenizer.factor())
    }

    /// Whether a request that comes now is to be counted: so many a minute, and a few at once.
    pub fn takes(&self, per_minute: u32, now: Instant) -> bool {
        let Some(every_ms) = 60_000_u64.checked_div(u64::from(per_minute)) else {
            return false;
        };
        let age = now.saturating_duration_since(self.born).as_millis();
        // What was not used of the past is saved up as far as the burst.
        let now_ms = u64::try_from(age).unwrap_or(u64::MAX / 2);
        let full_ms = now_ms.saturating_add(every_ms * BURST);
        self.next_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let next = next.max(now_ms) + every_ms;
                (next <= full_ms).then_some(next)
            })
            .is_ok()
    }

    /// Learns from an answer.
    pub fn learn(&self, side: Side, lesson: Lesson, now: Instant) {
        if !self.follows {
            return;
        }
        let learned = self.side(side);
        let mut progress = learned.progress();
        progress.batch.add(lesson);
        progress.batch_began.get_or_insert(now);
        self.apply(learned, &progress);
    }

    /// Takes the batches that are worth writing down, all of them where it is `urgent`.
    pub fn tell(&self, urgent: bool, now: Instant) -> Vec<Told<'_>> {
        let tell = |side| {
            let mut progress = self.side(side).progress();
            let due = progress.batch.len() >= BATCH_LESSONS_MIN
                || progress
                    .batch_began
                    .is_some_and(|began| now.saturating_duration_since(began) >= BATCH_AGE_MAX);
            let estimate = progress.batch.estimate().filter(|_| due || urgent)?;
            progress.batch_began = None;
            Some(Told {
                learning: self,
                side,
                batch: std::mem::take(&mut progress.batch),
                estimate,
            })
        };
        Side::ALL.into_iter().filter_map(tell).collect()
    }

    /// Takes in what all replicas together know.
    pub fn know(&self, side: Side, known: Known) {
        let learned = self.side(side);
        let mut progress = learned.progress();
        progress.known = Some(known);
        self.apply(learned, &progress);
    }

    /// Whether a stored factor is this model's.
    #[must_use]
    pub fn is_of(&self, stored: &TokenFactor) -> bool {
        *self.provider == *stored.provider
            && *self.model == *stored.model
            && self.tokenizer.encoding().name() == stored.encoding
    }

    /// One side, for whoever looks.
    #[must_use]
    pub fn show(&self, side: Side) -> Shown {
        let progress = self.side(side).progress();
        Shown {
            factor: self.factor(side),
            known: progress.known,
            waiting: progress.batch.len(),
        }
    }

    const fn side(&self, side: Side) -> &Learned {
        match side {
            Side::Prompt => &self.prompt,
            Side::Completion => &self.completion,
        }
    }

    fn apply(&self, learned: &Learned, progress: &Progress) {
        let known = progress.known.map(|known| known.estimate);
        let estimate = match (known, progress.batch.estimate()) {
            (Some(known), Some(new)) => Some(known.join(new)),
            (known, new) => known.or(new),
        };
        if let Some(estimate) = estimate.filter(|_| self.follows) {
            let factor = estimate.factor(self.tokenizer.factor());
            learned
                .factor
                .store(factor.thousandths(), Ordering::Relaxed);
        }
    }
}

impl Learned {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told<'_> {
    /// The batch as the store takes it.
    #[must_use]
    pub fn row(&self) -> NewTokenFactor<'_> {
        NewTokenFactor {
            provider: &self.learning.provider,
            model: &self.learning.model,
            encoding: self.learning.tokenizer.encoding().name(),
            side: self.side,
            estimate: self.estimate,
        }
    }

    /// It could not be written down: back to what waits.
    pub fn untold(self, now: Instant) {
        let mut progress = self.learning.side(self.side).progress();
        let newer = std::mem::replace(&mut progress.batch, self.batch);
        progress.batch.append(newer);
        progress.batch_began.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use tokens::Encoding;

    use super::*;

    fn learning(configured: u32, follows: bool) -> Learning {
        let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::new(configured).unwrap());
        Learning::new("p".into(), "m".into(), tokenizer, follows, Instant::now())
    }

    fn lesson(thousandths: u64) -> Lesson {
        Lesson::new(1000, thousandths).unwrap()
    }

    #[test]
    fn answers_move_the_factor_of_their_side_alone() {
        let learning = learning(1100, true);
        for _ in 0..20 {
            learning.learn(Side::Prompt, lesson(1400), Instant::now());
        }
        assert_eq!(learning.factor(Side::Prompt).thousandths(), 1400);
        assert_eq!(learning.factor(Side::Completion).thousandths(), 1100);
    }

    #[test]
    fn a_models_own_tokenizer_is_not_corrected() {
        let learning = learning(1000, false);
        for _ in 0..20 {
            learning.learn(Side::Prompt, lesson(1400), Instant::now());
        }
        assert_eq!(learning.factor(Side::Prompt), Factor::EXACT);
        assert!(learning.tell(true, Instant::now()).is_empty());
    }

    #[test]
    fn a_few_are_counted_at_once_and_then_so_many_a_minute() {
        let learning = learning(1000, true);
        let start = learning.born;
        let taken = |from: Duration| {
            (0..1000)
                .filter(|_| learning.takes(6, start + from))
                .count()
        };
        assert_eq!(taken(Duration::ZERO), 50);
        assert_eq!(taken(Duration::from_secs(60)), 6);
        assert_eq!(taken(Duration::from_secs(61)), 0);
        assert_eq!(
            taken(Duration::from_secs(24 * 3600)),
            50,
            "saved up without end"
        );
        assert!(!learning.takes(0, start + Duration::from_secs(48 * 3600)));
    }

    #[test]
    fn what_could_not_be_written_down_is_told_again() {
        let learning = learning(1000, true);
        let now = Instant::now();
        learning.learn(Side::Prompt, lesson(1200), now);
        assert!(learning.tell(false, now).is_empty(), "one is too few");
        let later = now + BATCH_AGE_MAX;
        let mut told = learning.tell(false, later);
        assert_eq!(told.len(), 1);
        learning.learn(Side::Prompt, lesson(1300), later);
        told.remove(0).untold(later);
        let told = learning.tell(true, later);
        assert_eq!(told[0].row().estimate.samples(), 2);
        assert_eq!(learning.show(Side::Prompt).waiting, 0);
    }
}
