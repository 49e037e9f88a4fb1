//! Encoding: a published vocabulary and the way it splits text.

use std::{
    fmt, iter,
    str::FromStr,
    sync::{LazyLock, atomic::AtomicBool},
};

use bpe_openai::byte_pair_encoding::BytePairEncoding;
use serde::{Deserialize, Serialize};

use crate::{Given, TokensError, error::shortened, given};

/// A published encoding that text can be counted with, named as OpenAI's tiktoken names it.
///
/// `o200k_harmony` has the text tokens of `o200k_base` and more special ones, so as a name it
/// means [`Encoding::O200kBase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Encoding {
    /// GPT-4o and everything after it.
    O200kBase,
    /// GPT-4, GPT-3.5, the text-embedding-3 family.
    Cl100kBase,
    /// One that the operator gives; no name means it.
    Given(Given),
}

impl Encoding {
    /// The name, as [`FromStr`] takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::O200kBase => "o200k_base",
            Self::Cl100kBase => "cl100k_base",
            Self::Given(given) => given.name(),
        }
    }

    /// The vocabulary of a published encoding. The first call loads it, which takes tens of
    /// milliseconds.
    pub(crate) fn vocabulary(self) -> Option<&'static BytePairEncoding> {
        self.splitter().map(|splitter| &splitter.bpe)
    }

    /// The tokens of one piece.
    pub(crate) fn piece_count(self, piece: &str) -> u64 {
        match self {
            Self::O200kBase => bpe_openai::o200k_base().bpe.count(piece.as_bytes()) as u64,
            Self::Cl100kBase => bpe_openai::cl100k_base().bpe.count(piece.as_bytes()) as u64,
            Self::Given(given) => given.count(piece),
        }
    }

    /// The most tokens that a byte of a prompt may come to at the provider: one, because a token
    /// is at least a byte, but for tokenizers that make text longer before they cut it.
    pub(crate) fn tokens_per_byte_max(self) -> u64 {
        match self {
            Self::O200kBase | Self::Cl100kBase => 1,
            Self::Given(given) => given.tokens_per_byte_max(),
        }
    }

    /// The bytes of the longest token in the vocabulary.
    pub(crate) fn token_bytes_max(self) -> usize {
        static O200K: LazyLock<usize> = LazyLock::new(|| longest(Encoding::O200kBase));
        static CL100K: LazyLock<usize> = LazyLock::new(|| longest(Encoding::Cl100kBase));
        match self {
            Self::O200kBase => *O200K,
            Self::Cl100kBase => *CL100K,
            // A piece is a token at least.
            Self::Given(_) => given::PIECE_BYTES_MAX,
        }
    }

    /// Whether somebody has begun to load the vocabulary.
    pub(crate) fn loading_begun(self) -> &'static AtomicBool {
        static O200K: AtomicBool = AtomicBool::new(false);
        static CL100K: AtomicBool = AtomicBool::new(false);
        // Read at start.
        static GIVEN: AtomicBool = AtomicBool::new(true);
        match self {
            Self::O200kBase => &O200K,
            Self::Cl100kBase => &CL100K,
            Self::Given(_) => &GIVEN,
        }
    }

    /// The pieces that `text` is split into before the vocabulary is applied; together they are
    /// the text. No token crosses a piece.
    ///
    /// For `cl100k_base`, tiktoken takes white space at the end of a text as one piece where
    /// `bpe-openai` splits it after its last line break. The counts are the same: no token of that
    /// vocabulary has white space after its last line break.
    pub(crate) fn pieces(self, text: &str) -> impl Iterator<Item = &str> {
        let published = self.splitter();
        let given = if published.is_some() { "" } else { text };
        let published = published.map(|splitter| splitter.split(text));
        let given = given::pieces(given);
        iter::chain(published.into_iter().flatten(), given)
    }

    fn splitter(self) -> Option<&'static bpe_openai::Tokenizer> {
        match self {
            Self::O200kBase => Some(bpe_openai::o200k_base()),
            Self::Cl100kBase => Some(bpe_openai::cl100k_base()),
            Self::Given(_) => None,
        }
    }
}

fn longest(encoding: Encoding) -> usize {
    let Some(vocabulary) = encoding.vocabulary() else {
        return 1;
    };
    let tokens = u32::try_from(vocabulary.num_tokens()).unwrap_or(u32::MAX);
    (0..tokens)
        .map(|token| vocabulary.token_len(token))
        .max()
        .unwrap_or(1)
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Encoding> for &'static str {
    fn from(encoding: Encoding) -> Self {
        encoding.name()
    }
}

impl FromStr for Encoding {
    type Err = TokensError;

    fn from_str(name: &str) -> Result<Self, TokensError> {
        match name {
            "o200k_base" | "o200k_harmony" => Ok(Self::O200kBase),
            "cl100k_base" => Ok(Self::Cl100kBase),
            other => Err(TokensError::UnknownEncoding {
                given: shortened(other),
            }),
        }
    }
}

impl TryFrom<String> for Encoding {
    type Error = TokensError;

    fn try_from(name: String) -> Result<Self, TokensError> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_told_the_known() {
        for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
            assert_eq!(encoding.to_string().parse(), Ok(encoding));
            let json = serde_json::to_string(&encoding).unwrap();
            assert_eq!(serde_json::from_str::<Encoding>(&json).unwrap(), encoding);
        }
        assert_eq!("o200k_harmony".parse(), Ok(Encoding::O200kBase));
        let error = "llama3".parse::<Encoding>().unwrap_err().to_string();
        assert!(error.contains("llama3"), "{error}");
        assert!(
            error.contains("o200k_base") && error.contains("cl100k_base"),
            "{error}"
        );
        assert!(
            "x".repeat(100_000)
                .parse::<Encoding>()
                .unwrap_err()
                .to_string()
                .len()
                < 300
        );
    }

    #[test]
    fn pieces_are_the_text() {
        for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
            for text in [
                "",
                "a",
                "Hello, world!\n\n  x",
                "a \n  ",
                " \n\n \t",
                "12345",
                "日本 語",
            ] {
                assert_eq!(
                    encoding.pieces(text).collect::<String>(),
                    text,
                    "{encoding}"
                );
            }
        }
    }

    #[test]
    fn no_token_has_white_space_after_its_last_line_break() {
        let vocabulary = Encoding::Cl100kBase.vocabulary().unwrap();
        for token in 0..u32::try_from(vocabulary.num_tokens()).unwrap() {
            let Ok(text) = std::str::from_utf8(vocabulary.token_bytes(token)) else {
                continue;
            };
            let closing = text.rsplit(['\r', '\n']).next().unwrap();
            assert!(
                closing == text || !closing.starts_with(char::is_whitespace),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_longest_tokens() {
        assert_eq!(Encoding::O200kBase.token_bytes_max(), 128);
        assert_eq!(Encoding::Cl100kBase.token_bytes_max(), 128);
    }
}
