//! Cutting inside one long piece, at a token boundary that no continuation of the text can move.
//!
//! Text without spaces (Chinese, Thai, a run of one character) can be one piece of any length.
//! Its count stays exact when it is cut at a boundary that lies in the encoding of every longer
//! text. Such a boundary is recognised by two properties of byte-pair encodings: a token sequence
//! is the encoding of its bytes exactly when each two neighbours are; and the encoding of a text is
//! the encoding of some shorter beginning plus one token, which is at most the longest in the
//! vocabulary. So a boundary that lies in the encodings of as many consecutive beginnings as the
//! longest token has bytes lies in those of all longer ones.

use bpe_openai::byte_pair_encoding::BytePairEncoding;

use crate::Encoding;

/// How many boundaries are tried, from the last backwards, before the piece is left whole.
const TRIES_MAX: usize = 8;

/// A cut: the bytes before it, and the tokens they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) bytes: usize,
    pub(crate) tokens: u64,
}

/// The last boundary inside `piece`, the first piece of a text that may go on, where the text can
/// be cut without changing the count of any continuation; nothing where none of those tried is one.
pub(crate) fn lasting_cut(encoding: Encoding, piece: &str) -> Option<Cut> {
    let vocabulary = encoding.vocabulary()?;
    boundaries(encoding, piece)
        .filter(|(cut, _)| resumable(piece, cut.bytes))
        .take(TRIES_MAX)
        .find(|(cut, last)| {
            let longest = encoding.token_bytes_max();
            lasts(vocabulary, longest, piece.as_bytes(), cut.bytes, *last)
        })
        .map(|(cut, _)| cut)
}

/// The last boundary inside `piece` that is not close to its end, whether it lasts or not.
pub(crate) fn any_cut(encoding: Encoding, piece: &str) -> Option<Cut> {
    boundaries(encoding, piece).next().map(|(cut, _)| cut)
}

/// The token boundaries of `piece` that fall on characters and have at least the longest token
/// behind them, from the last backwards, each with the token that ends there.
fn boundaries(encoding: Encoding, piece: &str) -> impl Iterator<Item = (Cut, u32)> {
    let latest = piece.len().saturating_sub(encoding.token_bytes_max());
    // In an encoding that was given nobody knows them: its pieces are short.
    let of = encoding.vocabulary();
    let tokens = of.map(|of| (of, of.encode_via_backtracking(piece.as_bytes())));
    let tokens = tokens
        .into_iter()
        .flat_map(|(of, tokens)| tokens.into_iter().map(|token| (token, of.token_len(token))));
    let mut cut = Cut {
        bytes: 0,
        tokens: 0,
    };
    let mut found = Vec::new();
    for (token, bytes) in tokens {
        cut.bytes += bytes;
        cut.tokens += 1;
        if cut.bytes > latest {
            break;
        }
        if piece.is_char_boundary(cut.bytes) {
            found.push((cut, token));
        }
    }
    found.into_iter().rev()
}

/// True when the text from `at` on, taken alone, splits as it does within the piece.
///
/// After a lower-case letter `o200k_base` takes no upper-case one into the same piece, and after a
/// line break that follows punctuation only further breaks: a text that starts in such a place
/// has to start with something that does the same.
fn resumable(piece: &str, at: usize) -> bool {
    let Some((before, after)) = piece.split_at_checked(at) else {
        return false;
    };
    if piece.trim_start().is_empty() {
        return true;
    }
    let lower_before = before.contains(char::is_lowercase);
    let break_before = before.contains(['\r', '\n']);
    let lower_next = after.chars().next().is_some_and(is_lower_letter);
    !break_before && (!lower_before || lower_next)
}

/// True for letters of category Ll, not for marks and modifiers that are merely lower-case.
fn is_lower_letter(c: char) -> bool {
    const COMBINING_IOTA: char = '\u{345}';
    c.is_lowercase() && c != COMBINING_IOTA && !c.to_uppercase().eq([c])
}

/// True when the piece's encoding has a boundary at `at`, where `last` ends, wherever the piece
/// turns out to end.
///
/// As the text goes on, the piece can lose its last character (a space goes to the next word) or
/// grow. Both are covered: all ends less than the longest token before its present one are tried,
/// and longer pieces follow from those.
fn lasts(
    vocabulary: &BytePairEncoding,
    longest: usize,
    piece: &[u8],
    at: usize,
    last: u32,
) -> bool {
    let shortest = piece.len().saturating_sub(longest) + 1;
    let mut follows = Vec::new();
    (shortest..=piece.len()).filter(|end| *end > at).all(|end| {
        let rest = piece.get(at..end).unwrap_or_default();
        let Some(next) = vocabulary.encode_via_backtracking(rest).first().copied() else {
            return false;
        };
        if !follows.contains(&next) {
            if !may_follow(vocabulary, last, next) {
                return false;
            }
            follows.push(next);
        }
        true
    })
}

/// True when the encoding of the two tokens' bytes is the two tokens.
fn may_follow(vocabulary: &BytePairEncoding, first: u32, second: u32) -> bool {
    let bytes = [
        vocabulary.token_bytes(first),
        vocabulary.token_bytes(second),
    ]
    .concat();
    vocabulary.encode_via_backtracking(&bytes) == [first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Factor, Tokenizer};
    use proptest::prelude::*;

    const BOTH: [Encoding; 2] = [Encoding::O200kBase, Encoding::Cl100kBase];

    fn count(encoding: Encoding, text: &str) -> u64 {
        Tokenizer::new(encoding, Factor::EXACT).count(text)
    }

    #[test]
    fn runs_of_one_kind_have_a_lasting_cut_near_their_end() {
        for encoding in BOTH {
            for unit in [
                "a",
                "ab",
                "xyzzy",
                "_",
                "=-",
                " ",
                "\n",
                " \n",
                "日",
                "漢字かな",
                "😀",
                "👩‍👩‍👧",
                "กขค",
            ] {
                let text = unit.repeat(2048 / unit.len() + 1);
                let cut = lasting_cut(encoding, &text);
                let cut = cut.unwrap_or_else(|| panic!("{encoding} {unit:?}"));
                assert!(cut.bytes > 1500, "{encoding} {unit:?} {cut:?}");
                assert_eq!(cut.tokens, count(encoding, &text[..cut.bytes]), "{unit:?}");
            }
        }
    }

    #[test]
    fn a_cut_never_changes_how_the_rest_splits() {
        let lower = format!("{}{}", "a", "日".repeat(900));
        assert_eq!(lasting_cut(Encoding::O200kBase, &lower), None);
        let slashes = format!("!!\n{}", "/".repeat(900));
        assert_eq!(lasting_cut(Encoding::O200kBase, &slashes), None);
        assert!(!is_lower_letter('ª') && !is_lower_letter('ʰ') && !is_lower_letter('日'));
        assert!(is_lower_letter('a') && is_lower_letter('ж') && is_lower_letter('ß'));
    }

    #[test]
    fn a_run_of_signs_is_cut_where_all_its_lengths_are() {
        // The encodings of 700 and of 701 hyphens have their last common boundary far before the
        // end, so a cut at a boundary of the one alone is off for the other.
        let mut moved = 0;
        for encoding in BOTH {
            for sign in ["=", "-", "*", "#", "~", "/"] {
                for length in (600..700).step_by(9) {
                    let text = sign.repeat(length);
                    let cut = lasting_cut(encoding, &text).unwrap();
                    moved += usize::from(Some(cut) != any_cut(encoding, &text));
                    for more in [0, 1, 7, 40, 64, 100] {
                        let rest = sign.repeat(length - cut.bytes + more);
                        let whole = sign.repeat(length + more);
                        let sum = cut.tokens + count(encoding, &rest);
                        assert_eq!(
                            sum,
                            count(encoding, &whole),
                            "{encoding} {length} {sign} and {more}"
                        );
                    }
                }
            }
        }
        assert!(moved > 10, "the first boundary always lasted: {moved}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_follows_the_count_is_the_same(
            unit in "[a-z]{1,5}|[日本語漢字]{1,4}|[!=_-]{1,4}|[\u{e01}-\u{e30}]{1,6}|[A-Z]{1,3}|[ \t\n]{1,3}|[😀👍🏽]{1,2}",
            more in "[a-zA-Z日本 \n!/'1-9]{0,40}",
        ) {
            let text = unit.repeat(1200 / unit.len() + 1);
            for encoding in BOTH {
                let Some(piece) = encoding.pieces(&text).next() else { continue };
                let Some(cut) = lasting_cut(encoding, piece) else { continue };
                let whole = format!("{text}{more}");
                let rest = &whole[cut.bytes..];
                prop_assert_eq!(cut.tokens + count(encoding, rest), count(encoding, &whole));
            }
        }
    }
}
