//! Tool definitions: what they cost in a prompt, by the rule OpenAI has published.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::value::RawValue;

use crate::{Encoding, Tokenizer};

/// Schemas larger than this are counted as plain text, in bytes.
const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Schemas nested deeper than this are counted as plain text from there on.
const SCHEMA_DEPTH_MAX: usize = 12;

/// Members of a schema that the published rule leaves out and that hold schemas themselves.
const BESIDE_THE_RULE: [&str; 8] = [
    "$defs",
    "additionalProperties",
    "allOf",
    "anyOf",
    "definitions",
    "oneOf",
    "patternProperties",
    "prefixItems",
];

/// The tokens around the definitions when a request has any.
pub(crate) const FUNC_END: i64 = 12;
const PROP_INIT: i64 = 3;
const PROP_KEY: i64 = 3;
const ENUM_INIT: i64 = -3;
const ENUM_ITEM: i64 = 3;

const fn func_init(encoding: Encoding) -> i64 {
    match encoding {
        // Nothing is published of the others.
        Encoding::O200kBase | Encoding::Given(_) => 7,
        Encoding::Cl100kBase => 10,
    }
}

/// Text and framing apart: the factor of a tokenizer applies to text alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ToolCount {
    /// Tokens of text, before the factor.
    pub(crate) text: u64,
    /// Tokens of framing; an `enum` takes three off.
    pub(crate) framing: i64,
}

/// Counts one definition.
///
/// The rule is that of the OpenAI cookbook, "How to count tokens with tiktoken", part "Counting
/// tokens for chat completions with tool calls": a constant for each function, property and enum
/// item around `name:description` and `key:type:description`, a full stop at the end left out. It
/// speaks of one level of properties with textual enums. What it is silent about is counted so:
/// nested properties and `items` like the outer ones, other enum values as their JSON and a
/// separator, and members that hold further schemas (`anyOf`, `$defs`, …) as their JSON. A schema
/// that is no object, too large or too deep counts as its JSON.
pub(crate) fn count(
    tokenizer: Tokenizer,
    name: &str,
    description: &str,
    schema: &str,
) -> ToolCount {
    let mut counter = Counter {
        tokenizer,
        total: ToolCount {
            text: 0,
            framing: func_init(tokenizer.encoding()),
        },
    };
    counter.text(&format!("{name}:{}", without_full_stop(description)));
    let schema = schema.trim();
    if schema.len() > SCHEMA_BYTES_MAX {
        counter.text(schema);
    } else if !schema.is_empty() {
        counter.members(schema, SCHEMA_DEPTH_MAX);
    }
    counter.total
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

struct Counter {
    tokenizer: Tokenizer,
    total: ToolCount,
}

impl Counter {
    fn text(&mut self, text: &str) {
        self.total.text += self.tokenizer.plain_count(text);
    }

    /// What is inside a schema, its own line not included.
    fn members(&mut self, schema: &str, depth: usize) {
        let parsed = serde_json::from_str::<Members<'_>>(schema);
        let (Ok(members), Some(depth)) = (parsed, depth.checked_sub(1)) else {
            return self.text(schema);
        };
        if let Some(properties) = members.get("properties") {
            self.properties(properties.get(), depth);
        }
        if let Some(items) = members.get("items") {
            self.text(&text_of(&members_of(items.get()), "description"));
            self.members(items.get(), depth);
        }
        if let Some(values) = members.get("enum") {
            self.values(values.get());
        }
        for name in BESIDE_THE_RULE {
            if let Some(member) = members.get(name) {
                self.text(member.get());
            }
        }
    }

    fn properties(&mut self, properties: &str, depth: usize) {
        let Ok(properties_by_name) = serde_json::from_str::<Members<'_>>(properties) else {
            return self.text(properties);
        };
        if !properties_by_name.is_empty() {
            self.total.framing += PROP_INIT;
        }
        for (key, property) in properties_by_name {
            self.total.framing += PROP_KEY;
            let members = members_of(property.get());
            let kind = text_of(&members, "type");
            let description = text_of(&members, "description");
            self.text(&format!("{key}:{kind}:{}", without_full_stop(&description)));
            if !members.is_empty() {
                self.members(property.get(), depth);
            }
        }
    }

    fn values(&mut self, values: &str) {
        let Ok(values_by_place) = serde_json::from_str::<Vec<&RawValue>>(values) else {
            return self.text(values);
        };
        self.total.framing += ENUM_INIT;
        for value in values_by_place {
            match serde_json::from_str::<Cow<'_, str>>(value.get()) {
                Ok(text) => {
                    self.total.framing += ENUM_ITEM;
                    self.text(&text);
                }
                Err(_) => {
                    self.total.framing += 1;
                    self.text(value.get());
                }
            }
        }
    }
}

/// The members of an object; none where it is none (`true` is a schema too).
fn members_of(schema: &str) -> Members<'_> {
    serde_json::from_str(schema).unwrap_or_default()
}

/// A textual member, or the JSON of any other (`"type": ["string", "null"]`), or nothing.
fn text_of(members: &Members<'_>, name: &str) -> String {
    let Some(value) = members.get(name) else {
        return String::new();
    };
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

fn without_full_stop(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Factor;

    fn counted(encoding: Encoding, name: &str, description: &str, schema: &str) -> i64 {
        let tool = count(
            Tokenizer::new(encoding, Factor::EXACT),
            name,
            description,
            schema,
        );
        i64::try_from(tool.text).unwrap() + tool.framing
    }

    const WEATHER: &str = r#"{"type":"object","required":["location"],"properties":{
        "location":{"type":"string","description":"The city and state, e.g. San Francisco, CA"},
        "unit":{"type":"string","description":"The unit of temperature to return","enum":["celsius","fahrenheit"]}}}"#;

    #[test]
    fn the_cookbooks_example() {
        // It gives 101 prompt tokens for gpt-4o with two messages, and 105 for gpt-4.
        let messages = |encoding| {
            let tokenizer = Tokenizer::new(encoding, Factor::EXACT);
            let system =
                "You are a helpful assistant that can answer to questions about the weather.";
            let user = "What's the weather like in San Francisco?";
            let texts = tokenizer.count(system) + tokenizer.count(user);
            i64::try_from(texts).unwrap() + 2 * (3 + 1) + 3
        };
        for (encoding, expected) in [(Encoding::O200kBase, 101), (Encoding::Cl100kBase, 105)] {
            let tool = counted(
                encoding,
                "get_current_weather",
                "Get the current weather in a given location",
                WEATHER,
            );
            assert_eq!(tool + FUNC_END + messages(encoding), expected, "{encoding}");
        }
    }

    #[test]
    fn what_the_rule_is_silent_about_is_counted_too() {
        let o200k = |schema: &str| counted(Encoding::O200kBase, "f", "", schema);
        let none = o200k("");
        assert_eq!(none, o200k("{}"));
        assert_eq!(none, o200k(r#"{"properties":{}}"#));
        let flat = o200k(r#"{"properties":{"a":{"type":"object"}}}"#);
        assert!(flat > none);
        let nested =
            o200k(r#"{"properties":{"a":{"type":"object","properties":{"b":{"type":"string"}}}}}"#);
        assert!(nested > flat);
        let items =
            o200k(r#"{"properties":{"a":{"type":"object","items":{"properties":{"b":{}}}}}}"#);
        assert!(items > flat);
        assert!(o200k(r#"{"anyOf":[{"type":"string"}]}"#) > none);
        assert!(o200k(r#"{"enum":[1,2,3,4,5]}"#) > none);
        assert!(o200k(r#"{"properties":{"a":true,"b":{"type":["string","null"]}}}"#) > flat);
    }

    #[test]
    fn hostile_schemas_are_counted_and_survived() {
        let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::EXACT);
        let deep = format!(r#"{}{}"#, r#"{"items":"#.repeat(20_000), "}".repeat(20_000));
        let deeper = "[".repeat(200_000);
        let properties = r#"{"properties":{"a":"#.repeat(5_000) + &"}}".repeat(5_000);
        let wide = format!(
            r#"{{"properties":{{{}"z":1}}}}"#,
            r#""a":{},"#.repeat(20_000)
        );
        let level = r#"{"properties":{"a":"#;
        let (ten, hundred) = (
            level.repeat(10) + "{}" + &"}}".repeat(10),
            level.repeat(100) + "{}" + &"}}".repeat(100),
        );
        assert_eq!(
            count(tokenizer, "f", "", &ten).framing,
            7 + 10 * (PROP_INIT + PROP_KEY)
        );
        let counted = count(tokenizer, "f", "", &hundred);
        let levels = i64::try_from(SCHEMA_DEPTH_MAX).unwrap();
        assert_eq!(counted.framing, 7 + levels * (PROP_INIT + PROP_KEY));
        assert!(
            counted.text > 88 * 4,
            "what is deeper is not counted: {}",
            counted.text
        );
        let twice = r#"{"properties":{"a":{}},"properties":[]}"#;
        for schema in [
            &deep,
            &deeper,
            &properties,
            &wide,
            twice,
            "nonsense",
            "[]",
            "null",
            "\"x\"",
            "{",
            "\u{0}",
        ] {
            let tool = count(tokenizer, "f", "d", schema);
            assert!(tool.text >= 2, "{:.40}", schema);
        }
    }
}
