//! How much longer a normalizer may make a text, so that a bound in its bytes stays one.

use serde_json::Value;
use tokenizers::Tokenizer;

/// Unicode's own figures for UTF-8 (Unicode Standard Annex 15, "Stability", table of expansion
/// factors): canonical forms make at most three bytes of one, compatibility forms eleven.
const CANONICAL: u64 = 3;
const COMPATIBILITY: u64 = 11;
/// A letter of two bytes whose small one has three.
const LOWERCASE: u64 = 2;
/// A space before and behind each Chinese character of three bytes.
const SPACED: u64 = 2;

/// How many bytes, or tokens, its normalizer makes of a byte at most, what it puts before a text once
/// apart; `None` where that is not known.
pub(crate) fn most(tokenizer: &Tokenizer) -> Option<u64> {
    let Some(normalizer) = tokenizer.get_normalizer() else {
        return Some(1);
    };
    let is_token = |text: &str| tokenizer.token_to_id(text).is_some();
    of(&serde_json::to_value(normalizer).ok()?, &is_token)
}

fn of(written: &Value, is_token: &dyn Fn(&str) -> bool) -> Option<u64> {
    match written["type"].as_str()? {
        "NFC" | "NFD" => Some(CANONICAL),
        // Tables of SentencePiece are those of NFKC with more or less left out.
        "NFKC" | "NFKD" | "Precompiled" => Some(COMPATIBILITY),
        "Lowercase" => Some(LOWERCASE),
        "BertNormalizer" => Some(CANONICAL * LOWERCASE * SPACED),
        // They take something away, or name each byte by a character that is a token at most.
        "Nmt" | "Strip" | "StripAccents" | "Prepend" | "ByteLevel" => Some(1),
        "Replace" => {
            let content = written["content"].as_str()?;
            // SentencePiece's sign for a space has three bytes, and is one token.
            let put = if is_token(content) {
                1
            } else {
                content.len() as u64
            };
            // What a regular expression finds may be nothing at all.
            let found = written["pattern"]["String"].as_str().map(str::len);
            Some(match found {
                Some(found) if found > 0 => put.div_ceil(found as u64).max(1),
                Some(_) | None => put + 1,
            })
        }
        "Sequence" => {
            let mut all = written["normalizers"].as_array()?.iter();
            all.try_fold(1_u64, |product, one| {
                product.checked_mul(of(one, is_token)?)
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_multiply_and_what_is_unknown_is_none() {
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        for (written, expected) in [
            (json!({"type": "NFC"}), Some(3)),
            (space.clone(), Some(3)),
            (
                json!({"type": "Replace", "pattern": {"Regex": " *"}, "content": ""}),
                Some(1),
            ),
            (
                json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, space.clone()]}),
                Some(66),
            ),
            (json!({"type": "Magic"}), None),
            (json!({"type": "Sequence", "normalizers": [{}]}), None),
        ] {
            assert_eq!(of(&written, &|_| false), expected, "{written}");
        }
        assert_eq!(of(&space, &|text| text == "\u{2581}"), Some(1));
    }
}
