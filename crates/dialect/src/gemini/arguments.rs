//! Arguments of a call that come in pieces, each with its place in the object that they make.

use serde_json::{Map, Number, Value};

use super::raw::RawPartial;
use crate::compose::literal;
use crate::error::DecodeError;
use crate::json;

/// Bytes of text and names in the arguments of one call.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Steps from the object to a value.
const STEPS_MAX: usize = 64;

/// The arguments of one call, as far as they have come.
#[derive(Debug)]
pub(super) struct Arguments {
    root: Value,
    bytes: usize,
}

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Name(&'a str),
    Place(usize),
}

impl Arguments {
    pub(super) fn new() -> Self {
        Self {
            root: Value::Object(Map::new()),
            bytes: 0,
        }
    }

    /// Adds a piece: text to the text that is at its place, any other value in place of what is there.
    ///
    /// # Errors
    /// A path that leads nowhere, or more than the bounds.
    pub(super) fn add(&mut self, piece: &RawPartial<'_>) -> Result<(), DecodeError> {
        let steps = steps(&piece.json_path).ok_or(DecodeError::shape("an unknown path"))?;
        let value = value(piece)?;
        let added = piece.json_path.len() + value.as_str().map_or(0, str::len);
        self.bytes = self.bytes.saturating_add(added);
        if self.bytes > BYTES_MAX {
            return Err(DecodeError::TooLarge);
        }
        let slot = reach(&mut self.root, &steps).ok_or(DecodeError::shape("an unknown path"))?;
        match (slot, value) {
            (Value::String(text), Value::String(more)) => text.push_str(&more),
            (slot, value) => *slot = value,
        }
        Ok(())
    }

    /// The whole as a JSON object.
    pub(super) fn json(&self) -> String {
        self.root.to_string()
    }
}

fn value(piece: &RawPartial<'_>) -> Result<Value, DecodeError> {
    if let Some(text) = piece.string_value {
        let text = literal(Some(text))?.unwrap_or(r#""""#);
        return Ok(Value::String(
            json::unescape(json::inside(text)).into_owned(),
        ));
    }
    if let Some(number) = piece.number_value {
        let number: Number = serde_json::from_str(number.get())?;
        return Ok(Value::Number(number));
    }
    match piece.bool_value {
        Some(flag) => Ok(Value::Bool(flag.get() == "true")),
        None => Ok(Value::Null),
    }
}

/// The steps of a path such as `$.a[0].b` or `$['a b']`.
fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() == STEPS_MAX {
            return None;
        }
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, behind) = after.split_at(end);
            steps.push(Step::Name(name));
            rest = behind;
        } else {
            let (inside, behind) = bracket(rest)?;
            steps.push(inside);
            rest = behind;
        }
    }
    (!steps.is_empty()).then_some(steps)
}

/// `[0]` or `['name']`, and what is behind it.
fn bracket(text: &str) -> Option<(Step<'_>, &str)> {
    let after = text.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(quoted) = after.strip_prefix(quote) {
            let (name, behind) = quoted.split_once(quote)?;
            return Some((Step::Name(name), behind.strip_prefix(']')?));
        }
    }
    let (place, behind) = after.split_once(']')?;
    Some((Step::Place(place.parse().ok()?), behind))
}

/// The place that the steps lead to, made where it is not there. Lists grow by one at a time.
fn reach<'v>(root: &'v mut Value, steps: &[Step<'_>]) -> Option<&'v mut Value> {
    let mut at = root;
    for step in steps {
        at = match step {
            Step::Name(name) => {
                if at.is_null() {
                    *at = Value::Object(Map::new());
                }
                at.as_object_mut()?.entry(*name).or_insert(Value::Null)
            }
            Step::Place(place) => {
                if at.is_null() {
                    *at = Value::Array(Vec::new());
                }
                let list = at.as_array_mut()?;
                if *place == list.len() {
                    list.push(Value::Null);
                }
                list.get_mut(*place)?
            }
        };
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(pieces: &[&str]) -> Result<String, DecodeError> {
        let mut arguments = Arguments::new();
        for piece in pieces {
            arguments.add(&serde_json::from_str(piece).unwrap())?;
        }
        Ok(arguments.json())
    }

    #[test]
    fn pieces_make_an_object() {
        let built = built(&[
            r#"{"jsonPath":"$.recipe.steps[0].text","stringValue":"Pre","willContinue":true}"#,
            r#"{"jsonPath":"$.recipe.steps[0].text","stringValue":"heat \"it\""}"#,
            r#"{"jsonPath":"$.recipe.steps[0].text","stringValue":""}"#,
            r#"{"jsonPath":"$.recipe.steps[1]","numberValue":0.5}"#,
            r#"{"jsonPath":"$['a b'][0]","boolValue":true}"#,
            r#"{"jsonPath":"$.nothing","nullValue":"NULL_VALUE"}"#,
        ])
        .unwrap();
        assert_eq!(
            built,
            r#"{"a b":[true],"nothing":null,"recipe":{"steps":[{"text":"Preheat \"it\""},0.5]}}"#
        );
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for path in ["", "$", "a.b", "$.a[9]", "$[0]", "$.a[x]", "$.a['b"] {
            let piece = format!(r#"{{"jsonPath":{},"stringValue":"x"}}"#, json::quote(path));
            assert!(built(&[&piece]).is_err(), "{path}");
        }
        let deep = format!(r#"{{"jsonPath":"${}","stringValue":"x"}}"#, ".a".repeat(65));
        assert!(built(&[&deep]).is_err());
        let leaf = [
            r#"{"jsonPath":"$.a","stringValue":"x"}"#,
            r#"{"jsonPath":"$.a.b","stringValue":"x"}"#,
        ];
        assert!(built(&leaf).is_err());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let text = "x".repeat(BYTES_MAX / 2);
        let piece = format!(r#"{{"jsonPath":"$.a","stringValue":"{text}"}}"#);
        assert!(built(&[&piece]).is_ok());
        assert_eq!(built(&[&piece, &piece]), Err(DecodeError::TooLarge));
    }
}
