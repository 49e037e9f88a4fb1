//! A tokenizer that the operator gives: how text is cut before it, and what it is asked.

use std::{fmt, hash, iter};

/// A piece has at least so many bytes where the text goes on.
const PIECE_BYTES_MIN: usize = 256;
/// And at most so many, wherever that cuts it.
pub(crate) const PIECE_BYTES_MAX: usize = 2 * 1024;

/// Cuts one piece of text into tokens. It is asked for pieces of at most 2 KiB, so that whatever it
/// does with one takes bounded time.
pub trait Vocabulary: Send + Sync {
    /// Says which one it is, in the books and to the operator.
    fn name(&self) -> &str;

    /// Where each token of a piece ends, in bytes, rising: as many as it has tokens.
    fn ends(&self, piece: &str) -> Vec<usize>;

    /// The most tokens that a byte of any text may come to: one, unless its text is rewritten first
    /// by something that makes it longer.
    fn tokens_per_byte_max(&self) -> u64 {
        1
    }

    /// How many tokens a piece has.
    fn count(&self, piece: &str) -> u64 {
        self.ends(piece).len() as u64
    }
}

/// A tokenizer that was read when the program started and is there until it ends.
/// One address, because every open stream has it.
#[derive(Clone, Copy)]
pub struct Given(&'static Kept);

struct Kept {
    name: String,
    vocabulary: Box<dyn Vocabulary>,
}

impl Given {
    /// Keeps a tokenizer for as long as the program runs: read each one once.
    #[must_use]
    pub fn keep(vocabulary: Box<dyn Vocabulary>) -> Self {
        let name = vocabulary.name().to_owned();
        Self(Box::leak(Box::new(Kept { name, vocabulary })))
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.name.as_str()
    }

    /// The most tokens that a byte of a prompt may come to.
    pub(crate) fn tokens_per_byte_max(self) -> u64 {
        self.0.vocabulary.tokens_per_byte_max().max(1)
    }

    /// The tokens of a piece: a token is at least a byte, whatever is said, so that bounds in
    /// bytes hold.
    pub(crate) fn count(self, piece: &str) -> u64 {
        self.0.vocabulary.count(piece).min(piece.len() as u64)
    }

    /// The tokens of each beginning of a piece, from its first byte on: those that end in it, and
    /// the one that is begun.
    pub(crate) fn counts(self, piece: &str) -> Vec<u64> {
        let mut counts = vec![0; piece.len()];
        let mut from = 0;
        let mut tokens = 0;
        for end in self.0.vocabulary.ends(piece) {
            tokens += 1;
            let to = end.min(piece.len());
            if let Some(beginnings) = counts.get_mut(from..to) {
                beginnings.fill(tokens);
                from = to;
            }
        }
        if let Some(rest) = counts.get_mut(from..) {
            rest.fill(tokens);
        }
        for (count, bytes) in counts.iter_mut().zip(1..) {
            *count = u64::min(*count, bytes);
        }
        counts
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Given").field(&self.0.name).finish()
    }
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Given {}

impl hash::Hash for Given {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

/// The pieces of a text: each ends before a space between two words, as soon as it has the least
/// size. There no usual tokenizer has a token that goes across. What is a piece depends on what is
/// before its end and the two characters behind it, never on how the text goes on from there.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, later) = rest.split_at(end(rest));
        rest = later;
        Some(piece)
    })
}

fn end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let last = bytes.len().min(PIECE_BYTES_MAX);
    let between_words = |at: &usize| {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(b' ');
        byte(*at) == b' '
            && !byte(at - 1).is_ascii_whitespace()
            && byte(at + 1).is_ascii_alphanumeric()
    };
    let found = (PIECE_BYTES_MIN..last).find(between_words);
    found.unwrap_or_else(|| text.floor_char_boundary(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Encoding, Factor, StreamCounter, Tokenizer};

    /// A token for each two bytes of a word, and the spaces before it with the first of them.
    struct Pairs;

    impl Vocabulary for Pairs {
        fn name(&self) -> &str {
            "pairs"
        }

        fn ends(&self, piece: &str) -> Vec<usize> {
            let mut ends = Vec::new();
            let mut in_token = 0;
            for (at, byte) in piece.bytes().enumerate() {
                if byte == b' ' {
                    if in_token > 0 {
                        ends.push(at);
                        in_token = 0;
                    }
                } else if in_token == 1 {
                    ends.push(at + 1);
                    in_token = 0;
                } else {
                    in_token = 1;
                }
            }
            if piece.len() > ends.last().copied().unwrap_or(0) {
                ends.push(piece.len());
            }
            ends
        }
    }

    fn given() -> Tokenizer {
        let given = Given::keep(Box::new(Pairs));
        Tokenizer::new(Encoding::Given(given), Factor::EXACT)
    }

    #[test]
    fn a_given_tokenizer_is_itself_by_its_name() {
        let tokenizer = given();
        assert_eq!(tokenizer, given());
        assert_eq!(tokenizer.encoding().to_string(), "pairs");
        assert_ne!(tokenizer.encoding(), Encoding::O200kBase);
        assert_eq!(tokenizer.count(""), 0);
        assert_eq!(tokenizer.count("abcd ab"), 3);
        assert_eq!(tokenizer.count_at_most("abcd ab", 2), None);
        assert_eq!(tokenizer.count_at_most("abcd ab", 3), Some(3));
    }

    #[test]
    fn pieces_end_between_words_or_where_they_must() {
        let words = "word ".repeat(1000);
        assert!(pieces(&words).all(|piece| piece.len() < PIECE_BYTES_MIN + 5
            && !piece.ends_with(' ')
            || words.ends_with(piece)));
        let one = "\u{4e00}".repeat(5000);
        assert!(pieces(&one).all(|piece| piece.len() <= PIECE_BYTES_MAX));
        assert_eq!(given().count(&words), 2 * 1000 + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_stream_counts_as_the_whole_however_it_comes(
            text in "(?s)([a-z]{1,9}[ .]{0,2}|\u{4e00}|\n| {1,5}){0,400}", size in 1_usize..400, share in 0_u64..100,
        ) {
            let tokenizer = given();
            let whole = tokenizer.count(&text);
            prop_assert!(whole <= tokenizer.upper_bound(text.len()));
            let mut counter = StreamCounter::new(tokenizer);
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.ceil_char_boundary(size));
                counter.push(now);
                counter.exact();
                rest = later;
            }
            prop_assert!(counter.is_exact());
            prop_assert_eq!(counter.exact(), whole);
            // What is paid for is let through, and nothing beyond.
            let limit = whole * share / 100;
            let fits = StreamCounter::new(tokenizer).fit(&text, limit);
            prop_assert!(tokenizer.count(&text[..fits]) <= limit);
            let next = text[fits..].chars().next().map_or(0, char::len_utf8);
            if next > 0 {
                prop_assert!(tokenizer.count(&text[..fits + next]) > limit);
            }
        }
    }
}
