//! What a model answers that nobody has written a script for.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::chunk::Shape;
use crate::request::{Asked, Function};
use crate::script::Script;
use crate::words::Passage;

/// The model of a first run: slow enough to watch.
pub(crate) const DEMO_MODEL: &str = "demo";
const DEMO_PAUSE: Duration = Duration::from_millis(20);

/// `mock-words-500` says 500 words.
const WORDS_PREFIX: &str = "mock-words-";
const WORDS_MAX: u64 = 1_000_000;
/// An answer to a request for JSON; each piece is one `o200k_base` token, also all together.
const JSON_PIECES: [&str; 5] = ["{\"", "answer", "\":\"", "yes", "\"}"];
const ARGUMENT_PIECES: usize = 4;

/// A sensible answer: a tool call where one is asked for, JSON where that is, else pleasant words.
pub(crate) fn sensible(asked: &Asked<'_>, shape: Shape, pause: Duration) -> Script {
    if let (Shape::Chat, Some(function)) = (shape, asked.called_function()) {
        return call(function);
    }
    let pause = if base_name(&asked.model) == DEMO_MODEL {
        DEMO_PAUSE
    } else {
        pause
    };
    let most = asked.tokens_max().unwrap_or(u64::MAX);
    if asked.wants_json() {
        let kept = usize::try_from(most).unwrap_or(usize::MAX);
        let mut pieces = json_pieces(asked.schema());
        let end = finish(most, u64::try_from(pieces.len()).unwrap_or(0));
        pieces.truncate(kept);
        let script = Script::new().role().own_words(pieces, pause, false);
        return script.finish(end).usage().done();
    }
    let (passage, end) = passage(asked);
    let script = Script::new().role().passage(passage, pause);
    script.finish(end).usage().done()
}

/// The usual JSON where it fits the schema, else what does.
fn json_pieces(schema: Option<&Value>) -> Vec<String> {
    match schema.filter(|schema| !takes_the_answer(schema)) {
        Some(schema) => vec![sample(schema).to_string()],
        None => JSON_PIECES.map(str::to_owned).to_vec(),
    }
}

/// Whether `{"answer":"yes"}` fits, as far as schemas are read here.
fn takes_the_answer(schema: &Value) -> bool {
    let answer = &schema["properties"]["answer"];
    let required = schema["required"].as_array();
    !schema["properties"].is_object()
        || (answer["type"] == "string"
            && answer["enum"].is_null()
            && required.is_none_or(|names| names.iter().all(|name| name == "answer")))
}

/// The words of an answer within its limit, and the finish reason that follows from it.
pub(crate) fn passage(asked: &Asked<'_>) -> (Passage, &'static str) {
    let wanted = base_name(&asked.model)
        .strip_prefix(WORDS_PREFIX)
        .and_then(|count| count.parse().ok())
        .map_or(Passage::whole(), |count: u64| count.min(WORDS_MAX));
    let most = asked.tokens_max().unwrap_or(u64::MAX);
    let passage = Passage::new(asked.prompt_words(), Some(wanted.min(most)));
    (passage, finish(most, wanted))
}

/// A model's name without the provider's before it.
pub(crate) fn base_name(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

fn finish(most: u64, wanted: u64) -> &'static str {
    if most < wanted { "length" } else { "stop" }
}

fn call(function: &Function) -> Script {
    let arguments = sample_arguments(&function.parameters).to_string();
    Script::new()
        .role()
        .tool_call(&function.name, &arguments, ARGUMENT_PIECES)
        .finish("tool_calls")
        .usage()
        .done()
}

/// Arguments that fit a JSON schema's required properties, or all where none is required.
pub(crate) fn sample_arguments(schema: &Value) -> Value {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let required = schema["required"].as_array();
    let needed = |name: &str| required.is_none_or(|list| list.iter().any(|one| one == name));
    properties
        .iter()
        .filter(|(name, _)| needed(name))
        .map(|(name, schema)| (name.clone(), sample(schema)))
        .collect()
}

/// Valid for the schemas of tests: nothing is followed that a reference points at.
pub(crate) fn sample(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => Value::from(1),
        Some("boolean") => Value::from(true),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => sample_arguments(schema),
        Some("null") => Value::Null,
        Some(_) | None => Value::from("demo"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_the_json_answer_is_one_token() {
        let tokens = tiktoken_rs::o200k_base().unwrap();
        for kept in 0..=JSON_PIECES.len() {
            let text = JSON_PIECES[..kept].concat();
            assert_eq!(tokens.encode_ordinary(&text).len(), kept, "{text}");
        }
        assert!(serde_json::from_str::<Value>(&JSON_PIECES.concat()).is_ok());
    }

    #[test]
    fn json_fits_the_schema() {
        let said = |schema: Value| json_pieces(Some(&schema)).concat();
        let usual = JSON_PIECES.concat();
        let schema = |name: &str, kind: Value| serde_json::json!({"type": "object", "properties": {name: kind}, "required": [name]});
        assert_eq!(json_pieces(None).concat(), usual);
        assert_eq!(
            said(schema("answer", serde_json::json!({"type": "string"}))),
            usual
        );
        let status = schema("status", serde_json::json!({"enum": ["ok"]}));
        assert_eq!(said(status.clone()), r#"{"status":"ok"}"#);
        assert_eq!(
            said(schema("inner", status)),
            r#"{"inner":{"status":"ok"}}"#
        );
    }

    #[test]
    fn arguments_fit_the_schema() {
        let schema = serde_json::json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"}, "days": {"type": "integer"},
                "unit": {"enum": ["c", "f"]}, "spare": {"type": "string"},
            },
            "required": ["city", "days", "unit"],
        });
        let expected = serde_json::json!({"city": "demo", "days": 1, "unit": "c"});
        assert_eq!(sample_arguments(&schema), expected);
        assert_eq!(sample_arguments(&Value::Null), serde_json::json!({}));
    }
}
