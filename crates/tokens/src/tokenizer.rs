//! Tokenizer: an encoding and a factor, counting whole texts in time linear in their bytes.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::{Encoding, TokensError, models};

/// Texts of at least this many bytes are counted off the async threads.
///
/// Counting costs at most about 0.2 ms of CPU per KiB (tabs; random letters half of that, English
/// an eighth), so what is shorter holds a thread for 12 ms at most.
pub const OFF_THREAD_BYTES_MIN: usize = 64 * 1024;

/// What a limited count may overshoot inside one piece before it gives up: the encoder takes
/// tokens back while it looks ahead, never more than a few.
const LOOK_AHEAD_TOKENS: u64 = 64;

/// How many tokens a model makes of one token of the encoding, in thousandths: 1000 is exact,
/// 1150 stands for a model whose own tokenizer makes 15 % more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Factor(u16);

impl Factor {
    /// The encoding is the model's own.
    pub const EXACT: Self = Self(1000);
    /// The smallest factor, in thousandths.
    pub const THOUSANDTHS_MIN: u32 = 250;
    /// The largest factor, in thousandths.
    pub const THOUSANDTHS_MAX: u32 = 4000;

    /// The factor of so many thousandths.
    ///
    /// # Errors
    /// [`TokensError::FactorOutOfRange`] outside 250 to 4000.
    pub const fn new(thousandths: u32) -> Result<Self, TokensError> {
        if thousandths < Self::THOUSANDTHS_MIN || thousandths > Self::THOUSANDTHS_MAX {
            return Err(TokensError::FactorOutOfRange { given: thousandths });
        }
        Ok(Self(thousandths as u16))
    }

    /// The factor in thousandths.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0 as u32
    }

    /// The model's tokens for so many of the encoding, rounded up; saturating.
    #[must_use]
    pub const fn scale(self, tokens: u64) -> u64 {
        clamped((tokens as u128 * self.0 as u128).div_ceil(1000))
    }

    /// The most tokens of the encoding that scale to at most `tokens` of the model.
    pub(crate) const fn most_within(self, tokens: u64) -> u64 {
        clamped(tokens as u128 * 1000 / self.0 as u128)
    }
}

const fn clamped(tokens: u128) -> u64 {
    if tokens > u64::MAX as u128 {
        u64::MAX
    } else {
        tokens as u64
    }
}

impl TryFrom<u32> for Factor {
    type Error = TokensError;

    fn try_from(thousandths: u32) -> Result<Self, TokensError> {
        Self::new(thousandths)
    }
}

impl From<Factor> for u32 {
    fn from(factor: Factor) -> Self {
        factor.thousandths()
    }
}

/// Counts text as one model does.
///
/// The text is counted as plain text: what looks like a special token (`<|endoftext|>`) is
/// counted as the characters it is written with. The count is the encoding's, times the factor,
/// rounded up once. The first count of a process loads the vocabulary (tens of milliseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tokenizer {
    encoding: Encoding,
    factor: Factor,
}

impl Tokenizer {
    /// A tokenizer that multiplies the counts of `encoding` by `factor`.
    #[must_use]
    pub const fn new(encoding: Encoding, factor: Factor) -> Self {
        Self { encoding, factor }
    }

    /// The encoding that tiktoken's map gives for an OpenAI model; `ft:` models count as their
    /// base. Nothing for models it does not know and for the retired encodings before
    /// `cl100k_base`.
    #[must_use]
    pub fn for_model(model: &str) -> Option<Encoding> {
        models::encoding_of(model)
    }

    /// The encoding.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The factor.
    #[must_use]
    pub const fn factor(&self) -> Factor {
        self.factor
    }

    /// The same encoding with another factor: one that was learned.
    #[must_use]
    pub const fn with_factor(self, factor: Factor) -> Self {
        Self { factor, ..self }
    }

    /// True once for each vocabulary: for whoever asks first, who may [`warm_up`](Self::warm_up).
    #[must_use]
    pub fn begins_loading(&self) -> bool {
        let begun = self.encoding.loading_begun();
        !begun.load(Ordering::Relaxed) && !begun.swap(true, Ordering::Relaxed)
    }

    /// Loads the vocabulary, so that no request pays for it.
    pub fn warm_up(&self) {
        self.encoding.token_bytes_max();
    }

    /// The tokens of `text`, in linear time for any text. See [`OFF_THREAD_BYTES_MIN`].
    #[must_use]
    pub fn count(&self, text: &str) -> u64 {
        self.factor.scale(self.plain_count(text))
    }

    /// The tokens of `text` if they are at most `limit`, else nothing. The work is in proportion to
    /// the smaller of the text and the longest text that `limit` tokens can be.
    #[must_use]
    pub fn count_at_most(&self, text: &str, limit: u64) -> Option<u64> {
        let limit = self.factor.most_within(limit);
        let longest = limit.saturating_mul(self.encoding.token_bytes_max() as u64);
        if text.len() as u64 > longest {
            return None;
        }
        let mut total = 0_u64;
        for piece in self.encoding.pieces(text) {
            let generous = (limit - total).saturating_add(LOOK_AHEAD_TOKENS);
            let generous = usize::try_from(generous).unwrap_or(usize::MAX);
            total += match self.encoding.vocabulary() {
                Some(vocabulary) => vocabulary.count_till_limit(piece.as_bytes(), generous)? as u64,
                None => self.piece_count(piece),
            };
            if total > limit {
                return None;
            }
        }
        Some(self.factor.scale(total))
    }

    /// The most tokens that any text of so many bytes can have: a token is at least one byte.
    #[must_use]
    pub const fn upper_bound(&self, bytes: usize) -> u64 {
        self.factor.scale(bytes as u64)
    }

    /// The encoding's own count, before the factor.
    pub(crate) fn plain_count(&self, text: &str) -> u64 {
        self.encoding
            .pieces(text)
            .map(|piece| self.piece_count(piece))
            .sum()
    }

    /// The encoding's own count of one piece.
    pub(crate) fn piece_count(&self, piece: &str) -> u64 {
        self.encoding.piece_count(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_factor_is_bounded_and_rounds_up_once() {
        for bad in [0, 249, 4001, u32::MAX] {
            assert_eq!(
                Factor::new(bad),
                Err(TokensError::FactorOutOfRange { given: bad })
            );
        }
        let factor = Factor::new(1150).unwrap();
        assert_eq!([0, 1, 10, 100].map(|n| factor.scale(n)), [0, 2, 12, 115]);
        assert_eq!(factor.scale(u64::MAX), u64::MAX);
        assert_eq!(factor.most_within(115), 100);
        assert_eq!(serde_json::from_str::<Factor>("1150").unwrap(), factor);
        assert!(serde_json::from_str::<Factor>("100").is_err());
        let slower = Tokenizer::new(Encoding::O200kBase, factor);
        assert_eq!(slower.count("one two three four five six seven"), 9);
        assert_eq!(slower.upper_bound(7), 9);
    }

    proptest! {
        #[test]
        fn the_limit_is_exact(text in "(?s)[ -~\u{4e00}-\u{4e20}]{0,60}", factor in 250_u32..=4000) {
            for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
                let tokenizer = Tokenizer::new(encoding, Factor::new(factor).unwrap());
                let count = tokenizer.count(&text);
                prop_assert_eq!(tokenizer.count_at_most(&text, count), Some(count));
                prop_assert_eq!(tokenizer.count_at_most(&text, u64::MAX), Some(count));
                if let Some(less) = count.checked_sub(1) {
                    prop_assert_eq!(tokenizer.count_at_most(&text, less), None);
                }
                prop_assert!(count <= tokenizer.upper_bound(text.len()));
            }
        }

        #[test]
        fn most_within_is_the_inverse_of_scale(tokens in 0..u64::MAX / 5000, factor in 250_u32..=4000) {
            let factor = Factor::new(factor).unwrap();
            let most = factor.most_within(tokens);
            prop_assert!(factor.scale(most) <= tokens);
            prop_assert!(factor.scale(most + 1) > tokens);
        }
    }
}
