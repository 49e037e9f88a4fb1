//! What a request gives to read: one text, several, or tokens by their numbers.

use std::borrow::Cow;
use std::ops::Range;

use crate::body::{Kind, kind};
use crate::error::RequestError;
use crate::json;

/// Texts or tokens, as `prompt` of completions and `input` of embeddings have them.
///
/// Source of the shapes: OpenAI's API reference, "Create completion" and "Create embeddings": a
/// text, a list of texts, a list of tokens, a list of lists of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs<'a> {
    /// Every text, escapes resolved.
    pub texts: Vec<Cow<'a, str>>,
    /// How many tokens were given by their numbers.
    pub tokens: u64,
    /// How many inputs there are: at least 1.
    pub count: usize,
}

impl<'a> Inputs<'a> {
    /// Reads the member `name` at a span of the body.
    ///
    /// # Errors
    /// It is none of the four shapes, or empty.
    pub(crate) fn read(
        text: &'a str,
        at: &Range<usize>,
        name: &'static str,
    ) -> Result<Self, RequestError> {
        let wrong = || {
            let message = format!(
                "`{name}` must be a text, a list of texts, a list of tokens or a list of such lists, and not empty."
            );
            RequestError::param(name, message)
        };
        let mut inputs = Self::default();
        match kind(json::slice(text, at)) {
            Kind::Text => {
                inputs.push_text(json::slice(text, at));
                return Ok(inputs);
            }
            Kind::List => {}
            Kind::Null | Kind::Bool | Kind::Number | Kind::Object => return Err(wrong()),
        }
        let mut numbers = 0_u64;
        for element in json::elements(text, at.start) {
            let item = json::slice(text, &element);
            match kind(item) {
                Kind::Text => inputs.push_text(item),
                Kind::Number if is_token(item) => numbers += 1,
                Kind::List => {
                    let before = inputs.tokens;
                    for token in json::elements(text, element.start) {
                        if !is_token(json::slice(text, &token)) {
                            return Err(wrong());
                        }
                        inputs.tokens += 1;
                    }
                    if inputs.tokens == before {
                        return Err(wrong());
                    }
                    inputs.count += 1;
                }
                Kind::Null | Kind::Bool | Kind::Number | Kind::Object => return Err(wrong()),
            }
        }
        match (numbers, inputs.count) {
            (0, 0) => Err(wrong()),
            (0, _) => Ok(inputs),
            (_, 0) => {
                inputs.tokens = numbers;
                inputs.count = 1;
                Ok(inputs)
            }
            // Tokens beside texts are no shape that anybody documents.
            (_, _) => Err(wrong()),
        }
    }

    fn push_text(&mut self, literal: &'a str) {
        self.texts.push(json::unescape(json::inside(literal)));
        self.count += 1;
    }
}

/// A token by its number.
fn is_token(json: &str) -> bool {
    json.parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<(Vec<String>, u64, usize)> {
        let inputs = Inputs::read(json, &(0..json.len()), "input").ok()?;
        let texts = inputs.texts.into_iter().map(Cow::into_owned).collect();
        Some((texts, inputs.tokens, inputs.count))
    }

    #[test]
    fn the_four_shapes_are_read() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        for (json, expected) in [
            (r#""a\nb""#, Some((texts(&["a\nb"]), 0, 1))),
            (r#"["a", "b"]"#, Some((texts(&["a", "b"]), 0, 2))),
            ("[1, 2, 3]", Some((Vec::new(), 3, 1))),
            ("[[1, 2], [3]]", Some((Vec::new(), 3, 2))),
            ("[]", None),
            ("[[]]", None),
            ("[-1]", None),
            ("[1.5]", None),
            (r#"[1, "a"]"#, None),
            (r#"[["a"]]"#, None),
            (r#"{"a": 1}"#, None),
            (r#"[{"text": "a"}]"#, None),
            ("7", None),
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
    }
}
