//! What answers teach about a model whose own tokenizer is not published: a factor that follows them.
//!
//! A [`Lesson`] is one answer: what the provider reported for a text, and what the encoding counts
//! in it. A [`Batch`] of lessons has a mean of its middle half, so that a few odd ones (a hidden prompt,
//! a picture that was read as text, a report that is wrong) move nothing. An [`Estimate`]
//! is what all batches so far come to; new ones are joined to it as means, each kept within
//! a quarter of what was known, and old ones fade. All of it is integer arithmetic.

use crate::Factor;

/// Texts of fewer tokens teach nothing: what surrounds them weighs too much.
pub const LESSON_TOKENS_MIN: u64 = 32;
/// A long text weighs no more than one of this many tokens.
const LESSON_WEIGHT_MAX: u64 = 2048;
/// Lessons that a batch takes.
pub const BATCH_LESSONS_MAX: usize = 64;
/// Answers that an estimate remembers; what is new has at least its share of that.
const SAMPLES_MAX: u32 = 128;
/// Answers that it takes for an estimate to stand alone; before, the configured factor has the
/// rest of the say.
const SAMPLES_TRUSTED: u32 = 16;
/// How far a batch can lie from a trusted estimate before it is taken for less, in percent.
const STEP_MAX_PERCENT: u32 = 25;
/// A learned factor lies between the configured one divided and multiplied by this.
const RANGE: u32 = 3;
/// One, in millionths.
const ONE: u64 = 1_000_000;
/// A ratio beyond this, or below its inverse, is nobody's tokenizer.
const RATIO_MAX: u64 = 8;

/// Which texts a factor is for: models can be counted apart for what they read and what they write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// What the model reads.
    Prompt,
    /// What it writes.
    Completion,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Prompt, Self::Completion];

    /// The name in JSON, in the database and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Completion => "completion",
        }
    }
}

/// What one answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    millionths: u32,
    weight: u32,
}

impl Lesson {
    /// The lesson of a text that the encoding counts as `counted` tokens and the provider as
    /// `reported`; nothing where the text is too short, or the report cannot be of this text.
    #[must_use]
    pub fn new(counted: u64, reported: u64) -> Option<Self> {
        if counted < LESSON_TOKENS_MIN || reported == 0 {
            return None;
        }
        let ratio = u128::from(reported) * u128::from(ONE) / u128::from(counted);
        let possible = ONE / RATIO_MAX..=ONE * RATIO_MAX;
        let millionths = u32::try_from(ratio)
            .ok()
            .filter(|ratio| possible.contains(&u64::from(*ratio)))?;
        let weight = u32::try_from(counted.min(LESSON_WEIGHT_MAX)).unwrap_or(u32::MAX);
        Some(Self { millionths, weight })
    }
}

/// Lessons that were not joined to an estimate yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(Vec<Lesson>);

impl Batch {
    /// Takes a lesson; one too many is forgotten.
    pub fn add(&mut self, lesson: Lesson) {
        if self.0.len() < BATCH_LESSONS_MAX {
            self.0.push(lesson);
        }
    }

    /// Takes the lessons of a newer batch, as far as there is room.
    pub fn append(&mut self, newer: Self) {
        for lesson in newer.0 {
            self.add(lesson);
        }
    }

    /// How many lessons there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The weighted mean of the middle half of the lessons; nothing where there are none.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by_key(|lesson| lesson.millionths);
        let weight = |lesson: &Lesson| u64::from(lesson.weight);
        let all: u64 = sorted.iter().map(weight).sum();
        let (from, to) = (all / 4, all - all / 4);
        let (mut before, mut sum) = (0, 0);
        for lesson in &sorted {
            let after = before + weight(lesson);
            let inside = after.min(to).saturating_sub(before.max(from));
            sum += inside * u64::from(lesson.millionths);
            before = after;
        }
        let mean = sum.checked_div(to - from)?;
        Estimate::new(
            u32::try_from(mean).ok()?,
            u32::try_from(self.0.len()).unwrap_or(u32::MAX),
        )
    }
}

/// How many tokens a model makes of one of the encoding, and on how many answers that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    millionths: u32,
    samples: u32,
}

impl Estimate {
    /// An estimate as it was kept; nothing where it cannot be one.
    #[must_use]
    pub fn new(millionths: u32, samples: u32) -> Option<Self> {
        (millionths > 0 && samples > 0).then_some(Self {
            millionths,
            samples: samples.min(SAMPLES_MAX),
        })
    }

    /// The model's tokens for a million of the encoding's.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.millionths
    }

    /// The answers it rests on, at most 128: what came before has faded.
    #[must_use]
    pub const fn samples(self) -> u32 {
        self.samples
    }

    /// What this and a newer batch come to together.
    #[must_use]
    pub fn join(self, newer: Self) -> Self {
        let mut new = u64::from(newer.millionths);
        let old = u64::from(self.millionths);
        if self.samples >= SAMPLES_TRUSTED {
            let step = old * u64::from(STEP_MAX_PERCENT) / 100;
            new = new.clamp(old - step, old + step);
        }
        let new_weight = u64::from(newer.samples);
        let old_weight = u64::from(
            self.samples
                .min(SAMPLES_MAX - newer.samples.min(SAMPLES_MAX)),
        );
        let mean = (old * old_weight + new * new_weight) / (old_weight + new_weight).max(1);
        Self {
            millionths: u32::try_from(mean).unwrap_or(u32::MAX).max(1),
            samples: u32::try_from(old_weight + new_weight)
                .unwrap_or(SAMPLES_MAX)
                .min(SAMPLES_MAX),
        }
    }

    /// The factor to count with. It stays between a third and three times the configured one; the fewer
    /// answers there are, the nearer.
    #[must_use]
    pub fn factor(self, configured: Factor) -> Factor {
        let trust = u64::from(self.samples.min(SAMPLES_TRUSTED));
        let doubt = u64::from(SAMPLES_TRUSTED) - trust;
        let prior = u64::from(configured.thousandths()) * 1000;
        let blended =
            (u64::from(self.millionths) * trust + prior * doubt) / u64::from(SAMPLES_TRUSTED);
        let thousandths = u32::try_from((blended + 500) / 1000).unwrap_or(u32::MAX);
        let (least, most) = range(configured);
        // What lies in that range is a factor.
        Factor::new(thousandths.clamp(least, most)).unwrap_or(configured)
    }
}

/// The least and the most, in thousandths, that a learned factor can be.
const fn range(configured: Factor) -> (u32, u32) {
    let configured = configured.thousandths();
    let least = configured / RANGE;
    let most = configured * RANGE;
    (
        if least < Factor::THOUSANDTHS_MIN {
            Factor::THOUSANDTHS_MIN
        } else {
            least
        },
        if most > Factor::THOUSANDTHS_MAX {
            Factor::THOUSANDTHS_MAX
        } else {
            most
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(ratios: impl IntoIterator<Item = u64>) -> Batch {
        let mut batch = Batch::default();
        for thousandths in ratios {
            batch.add(Lesson::new(1000, thousandths).unwrap());
        }
        batch
    }

    fn thousandths(estimate: Estimate) -> u32 {
        estimate.factor(Factor::EXACT).thousandths()
    }

    #[test]
    fn short_texts_and_impossible_reports_teach_nothing() {
        assert_eq!(Lesson::new(LESSON_TOKENS_MIN - 1, 40), None);
        assert_eq!(Lesson::new(1000, 0), None);
        assert_eq!(Lesson::new(1000, 100), None, "a tenth is no tokenizer");
        assert_eq!(Lesson::new(1000, 9000), None);
        assert_eq!(Lesson::new(1000, u64::MAX), None);
        assert!(Lesson::new(u64::MAX, u64::MAX).is_some());
    }

    #[test]
    fn a_minority_of_odd_answers_moves_nothing() {
        let odd = (0..20).map(|n| if n % 2 == 0 { 7900 } else { 130 });
        let batch = batch((0..30).map(|n| 1290 + n).chain(odd));
        let learned = thousandths(batch.estimate().unwrap());
        assert!((1280..1330).contains(&learned), "{learned}");
    }

    #[test]
    fn few_answers_have_little_say_and_enough_of_them_all_of_it() {
        let one = batch([1600]).estimate().unwrap();
        assert_eq!(thousandths(one), 1038, "a sixteenth of the way");
        let enough = batch([1600; 16]).estimate().unwrap();
        assert_eq!(thousandths(enough), 1600);
    }

    #[test]
    fn the_range_is_around_what_is_configured() {
        let configured = Factor::new(1100).unwrap();
        let far = batch([7000; 50]).estimate().unwrap();
        assert_eq!(far.factor(configured).thousandths(), 3300);
        let near_nothing = batch([200; 50]).estimate().unwrap();
        assert_eq!(near_nothing.factor(configured).thousandths(), 366);
        assert_eq!(
            near_nothing.factor(Factor::new(300).unwrap()).thousandths(),
            250
        );
    }

    #[test]
    fn a_provider_that_changes_is_followed_and_a_bad_hour_is_not() {
        let mut known = batch([1000; 64]).estimate().unwrap();
        let bad = batch([4000; 3]).estimate().unwrap();
        assert!(known.join(bad).millionths() < 1_020_000);
        for _ in 0..40 {
            known = known.join(batch([1350; 8]).estimate().unwrap());
        }
        assert!(
            (1_300_000..=1_350_000).contains(&known.millionths()),
            "{known:?}"
        );
    }

    proptest! {
        #[test]
        fn joined_in_any_order_it_lies_between_and_never_overflows(
            batches in prop::collection::vec((125_000_u32..=8_000_000, 1_u32..=64), 1..40),
            configured in 250_u32..=4000,
        ) {
            let configured = Factor::new(configured).unwrap();
            let mut joined: Option<Estimate> = None;
            for (millionths, samples) in &batches {
                let new = Estimate::new(*millionths, *samples).unwrap();
                joined = Some(joined.map_or(new, |old| old.join(new)));
            }
            let joined = joined.unwrap();
            let least = batches.iter().map(|b| b.0).min().unwrap();
            let most = batches.iter().map(|b| b.0).max().unwrap();
            prop_assert!((least - 1..=most).contains(&joined.millionths()));
            prop_assert!(joined.samples() <= SAMPLES_MAX);
            let factor = joined.factor(configured).thousandths();
            prop_assert!(factor >= configured.thousandths() / RANGE);
            prop_assert!(factor <= configured.thousandths() * RANGE);
        }

        #[test]
        fn after_fifty_answers_it_is_within_five_percent_of_a_noisy_truth(
            truth in 700_u64..1900,
            noise in prop::collection::vec(-60_i64..=60, 50),
        ) {
            let noisy = noise.iter().map(|n| truth.saturating_add_signed(truth as i64 * n / 1000));
            let learned = u64::from(thousandths(batch(noisy).estimate().unwrap()));
            prop_assert!(learned.abs_diff(truth) * 20 <= truth, "{learned} {truth}");
        }
    }
}
