//! Words that a text may have in it, looked for by searchers that are made once.

use memchr::memmem::Finder;

/// How a letter of a word is written as an escape in JSON.
const ESCAPE: &str = "\\u00";

/// Some words of requests.
#[derive(Debug)]
pub struct Words(Vec<Finder<'static>>);

impl Words {
    /// These words.
    #[must_use]
    pub fn new(words: &[&'static str]) -> Self {
        let words = words.iter().chain([&ESCAPE]);
        Self(words.map(|word| Finder::new(*word)).collect())
    }

    /// Whether any of them may be in a text in JSON: an escape hides nothing, because it is found too.
    #[must_use]
    pub fn may_be_in(&self, json: &[u8]) -> bool {
        self.0.iter().any(|word| word.find(json).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_any_spelling() {
        let words = Words::new(&["file", "video"]);
        for (json, found) in [
            (r#"{"file_id":1}"#, true),
            (r#"{"type":"video_url"}"#, true),
            (r#"{"f\u0069le":1}"#, true),
            (r#"{"image":"fil e"}"#, false),
        ] {
            assert_eq!(words.may_be_in(json.as_bytes()), found, "{json}");
        }
    }
}
