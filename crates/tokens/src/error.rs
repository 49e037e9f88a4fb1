//! Why a tokenizer, a factor or an image rule was refused.

use crate::{Factor, ImageRule};

/// A setting that names no tokenizer, factor or rule known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// The name is no encoding.
    #[error(
        "unknown tokenizer {given:?}: write \"o200k_base\", \"o200k_harmony\" (counts as o200k_base) or \"cl100k_base\", the nearest one, with a factor"
    )]
    UnknownEncoding {
        /// What was written, at most its first 64 characters.
        given: String,
    },
    /// The factor is out of range.
    #[error(
        "token factor {given} is out of range: thousandths from {min} to {max}, 1000 is exact",
        min = Factor::THOUSANDTHS_MIN,
        max = Factor::THOUSANDTHS_MAX
    )]
    FactorOutOfRange {
        /// What was written.
        given: u32,
    },
    /// The name is no image rule.
    #[error("unknown image rule {given:?}: known are {}", ImageRule::names().join(", "))]
    UnknownImageRule {
        /// What was written, at most its first 64 characters.
        given: String,
    },
}

/// The beginning of a refused name: an error text stays short whatever was written.
pub(crate) fn shortened(given: &str) -> String {
    given.chars().take(64).collect()
}
