//! The built-in text: pleasant sentences in which every piece is exactly one `o200k_base` token.

use std::sync::LazyLock;

/// Each piece is sent as a chunk of its own. That piece and token are the same, also where
/// sentences meet, is what makes reported and counted usage agree; a test checks it.
const SENTENCES: [&[&str]; 6] = [
    &[
        " Every", " word", " of", " this", " answer", " is", " counted", " while", " it", " flows",
        " to", " you", ".",
    ],
    &[
        " The", " price", " is", " known", " before", " the", " first", " word", " leaves", ".",
    ],
    &[
        " When", " the", " credits", " are", " gone", ",", " the", " stream", " stops", " and",
        " says", " why", ".",
    ],
    &[
        " No",
        " real",
        " model",
        " is",
        " speaking",
        " here",
        ",",
        " only",
        " a",
        " friendly",
        " demo",
        ".",
    ],
    &[
        " You", " can", " point", " any", " client", " at", " this", " address", " and", " watch",
        " the", " balance", " move", ".",
    ],
    &[
        " Take",
        " your",
        " time",
        ",",
        " and",
        " have",
        " a",
        " very",
        " pleasant",
        " day",
        ".",
    ],
];

static PIECES: LazyLock<Vec<&'static str>> = LazyLock::new(|| SENTENCES.concat());

/// A run through the sentences, beginning with one of them and going round as often as needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    start: usize,
    count: u64,
}

impl Passage {
    /// The whole text once, or `count` pieces. The prompt's length picks the first sentence.
    pub(crate) fn new(prompt_words: u64, count: Option<u64>) -> Self {
        let sentences = u64::try_from(SENTENCES.len()).unwrap_or(1);
        let first = usize::try_from(prompt_words % sentences).unwrap_or(0);
        Self {
            start: SENTENCES.iter().take(first).map(|one| one.len()).sum(),
            count: count.unwrap_or(Self::whole()),
        }
    }

    /// How many pieces the whole text has.
    pub(crate) fn whole() -> u64 {
        u64::try_from(PIECES.len()).unwrap_or(u64::MAX)
    }

    pub(crate) fn count(self) -> u64 {
        self.count
    }

    /// The piece at a place; none after the last.
    pub(crate) fn get(self, place: u64) -> Option<&'static str> {
        if place >= self.count {
            return None;
        }
        let turn = usize::try_from(place % Self::whole()).unwrap_or(0);
        let piece = PIECES.get((self.start + turn) % PIECES.len())?;
        Some(if place == 0 {
            piece.trim_start()
        } else {
            piece
        })
    }
}

/// A text in pieces that begin where a word's spaces begin; put together they are the text.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut after_space = true;
    for c in text.chars() {
        let begins = c.is_whitespace() && !after_space;
        after_space = c.is_whitespace();
        match pieces.last_mut() {
            Some(piece) if !begins => piece.push(c),
            Some(_) | None => pieces.push(c.to_string()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(passage: Passage) -> String {
        (0..).map_while(|place| passage.get(place)).collect()
    }

    #[test]
    fn every_piece_is_one_token_wherever_the_text_begins_and_ends() {
        let tokens = tiktoken_rs::o200k_base().unwrap();
        for prompt_words in 0..6 {
            for count in (0..=200).chain([1_000]) {
                let text = text(Passage::new(prompt_words, Some(count)));
                let counted = tokens.encode_ordinary(&text).len() as u64;
                assert_eq!(counted, count, "{text}");
            }
        }
    }

    #[test]
    fn the_text_is_as_long_as_promised_and_follows_the_prompt() {
        let texts: Vec<String> = (0..6).map(|n| text(Passage::new(n, None))).collect();
        for text in &texts {
            let words = text.split_whitespace().count();
            assert!((55..=75).contains(&words), "{words}: {text}");
            assert!(text.ends_with('.') && text.starts_with(char::is_uppercase));
        }
        assert_ne!(texts[0], texts[1]);
        assert_eq!(texts[0], text(Passage::new(6, None)));
    }

    #[test]
    fn pieces_lose_nothing() {
        for (text, expected) in [
            ("", vec![]),
            ("a", vec!["a"]),
            ("a b", vec!["a", " b"]),
            ("  a  b ", vec!["  a", "  b", " "]),
            ("ä\nö", vec!["ä", "\nö"]),
        ] {
            assert_eq!(pieces(text), expected);
        }
    }
}
