//! Reads a `tokenizer.json`, the file that open models come with, so that their tokens can be counted.
//!
//! A crate of its own, because everything waits for `tokens` to be built and nothing for this.

mod longer;

use tokenizers::Tokenizer;
use tokens::{Given, Vocabulary};

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no `tokenizer.json`, or one with a part that is not known here.
    #[error("is no tokenizer.json that can be read: {0}")]
    Malformed(String),
    /// It cannot cut plain text into tokens.
    #[error("does not cut plain text into tokens: {0}")]
    Unusable(String),
}

/// What a tokenizer is tried with.
const PROBE: &str = "The quick brown fox jumps over the lazy dog";

/// A tokenizer that was read.
struct Read {
    name: String,
    tokenizer: Tokenizer,
    /// Whether it puts a space of its own before every text, so that the one before a piece would
    /// be there twice.
    adds_space: bool,
    /// How many bytes its normalizer may make of one.
    longer: u64,
}

/// Reads a `tokenizer.json`, which is kept until the program ends; `name` says in the books which
/// one it is. What looks like a special token is counted as the characters it is written with, and
/// none that begin or end a text are added.
///
/// # Errors
/// [`ReadError`].
pub fn read(json: &[u8], name: &str) -> Result<Given, ReadError> {
    let malformed = |error: tokenizers::Error| ReadError::Malformed(error.to_string());
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(malformed)?;
    tokenizer.with_truncation(None).map_err(malformed)?;
    tokenizer.with_padding(None);
    tokenizer.set_encode_special_tokens(true);
    let longer = longer::most(&tokenizer);
    let unknown = || ReadError::Malformed("its normalizer is not known".to_owned());
    let mut read = Read {
        name: name.to_owned(),
        longer: longer.ok_or_else(unknown)?,
        tokenizer,
        adds_space: false,
    };
    let whole = read.tokens(PROBE)?;
    if whole == 0 {
        let nothing = format!("{PROBE:?} has no tokens");
        return Err(ReadError::Unusable(nothing));
    }
    read.adds_space = read.is_nearer_without_the_space(whole)?;
    Ok(Given::keep(Box::new(read)))
}

impl Read {
    fn tokens(&self, text: &str) -> Result<usize, ReadError> {
        let encoded = self.tokenizer.encode_fast(text, false);
        let encoded = encoded.map_err(|error| ReadError::Unusable(error.to_string()))?;
        Ok(encoded.len())
    }

    /// Whether a text that is cut before its spaces adds up to its own count better when the pieces
    /// are taken without them.
    fn is_nearer_without_the_space(&self, whole: usize) -> Result<bool, ReadError> {
        let (mut with, mut without) = (0, 0);
        for (at, word) in PROBE.split(' ').enumerate() {
            let bare = self.tokens(word)?;
            without += bare;
            with += if at == 0 {
                bare
            } else {
                self.tokens(&format!(" {word}"))?
            };
        }
        Ok(without.abs_diff(whole) < with.abs_diff(whole))
    }

    /// The piece as it is asked about, and how many bytes were left out before it.
    fn bare<'a>(&self, piece: &'a str) -> (&'a str, usize) {
        match piece.strip_prefix(' ') {
            Some(bare) if self.adds_space && !bare.is_empty() => (bare, 1),
            Some(_) | None => (piece, 0),
        }
    }
}

impl Vocabulary for Read {
    fn name(&self) -> &str {
        &self.name
    }

    fn tokens_per_byte_max(&self) -> u64 {
        self.longer
    }

    fn ends(&self, piece: &str) -> Vec<usize> {
        let (bare, left_out) = self.bare(piece);
        match self.tokenizer.encode(bare, false) {
            Ok(encoded) => {
                let ends = encoded.get_offsets().iter().map(|(_, end)| end + left_out);
                ends.collect()
            }
            // What it cannot cut is at most a token for each byte.
            Err(_) => (1..=piece.len()).collect(),
        }
    }

    fn count(&self, piece: &str) -> u64 {
        let (bare, _) = self.bare(piece);
        match self.tokenizer.encode_fast(bare, false) {
            Ok(encoded) => encoded.len() as u64,
            Err(_) => piece.len() as u64,
        }
    }
}
