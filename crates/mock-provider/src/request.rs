//! What a chat or completion request asks for, as far as the answer depends on it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

/// The most choices an answer has, as at OpenAI.
pub(crate) const CHOICES_MAX: u32 = 128;
/// Added to the prompt's words for each message.
const TOKENS_A_MESSAGE: u64 = 3;

/// The parts of a request that matter here. Everything else is let pass, as real providers do.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Asked<'a> {
    #[serde(borrow, default)]
    pub(crate) model: Cow<'a, str>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(borrow, default)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    prompt: Option<Value>,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Tool {
    #[serde(default)]
    function: Function,
}

/// A function that the model may call.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Function {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) parameters: Value,
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    json_schema: Option<NamedSchema>,
}

#[derive(Debug, Deserialize)]
struct NamedSchema {
    #[serde(default)]
    schema: Value,
}

impl Content<'_> {
    fn texts(&self) -> impl Iterator<Item = &str> {
        let (text, parts): (Option<&str>, &[Part]) = match self {
            Self::Text(text) => (Some(text), &[]),
            Self::Parts(parts) => (None, parts),
        };
        text.into_iter()
            .chain(parts.iter().filter_map(|part| part.text.as_deref()))
    }
}

impl Asked<'_> {
    pub(crate) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    pub(crate) fn wants_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage == Some(true))
    }

    /// The newer name wins where both are given.
    pub(crate) fn tokens_max(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    pub(crate) fn choices(&self) -> u32 {
        self.n.unwrap_or(1).clamp(1, CHOICES_MAX)
    }

    pub(crate) fn prompt_words(&self) -> u64 {
        let texts = self.messages.iter().flat_map(|one| &one.content);
        let of_messages: u64 = texts.flat_map(Content::texts).map(words).sum();
        of_messages + self.prompt.as_ref().map_or(0, words_of_value)
    }

    pub(crate) fn prompt_tokens(&self) -> u64 {
        let messages = u64::try_from(self.messages.len()).unwrap_or(u64::MAX);
        self.prompt_words() + messages.saturating_mul(TOKENS_A_MESSAGE)
    }

    pub(crate) fn wants_json(&self) -> bool {
        self.response_format
            .as_ref()
            .is_some_and(|format| matches!(&*format.kind, "json_object" | "json_schema"))
    }

    /// The schema that the JSON is to fit.
    pub(crate) fn schema(&self) -> Option<&Value> {
        let named = self.response_format.as_ref()?.json_schema.as_ref()?;
        Some(&named.schema)
    }

    /// The function to call: only when the client insists, or the last message says so in words.
    pub(crate) fn called_function(&self) -> Option<&Function> {
        let function = &self.tools.first()?.function;
        let insists = match self.tool_choice.as_ref() {
            Some(Value::String(choice)) if choice == "none" => return None,
            Some(Value::String(choice)) => choice == "required",
            Some(Value::Object(_)) => true,
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | None => false,
        };
        let last = self.messages.last().and_then(|one| one.content.as_ref());
        let says_so = last.is_some_and(|content| {
            let mut texts = content.texts();
            texts.any(|text| text.to_ascii_lowercase().contains("call the tool"))
        });
        (insists || says_so).then_some(function)
    }
}

/// The words of a text, or of the texts of a list; a token that is given as a number is one word.
pub(crate) fn words_of_value(value: &Value) -> u64 {
    match value {
        Value::String(text) => words(text),
        Value::Number(_) => 1,
        Value::Array(values) => values.iter().map(words_of_value).sum(),
        Value::Null | Value::Bool(_) | Value::Object(_) => 0,
    }
}

fn words(text: &str) -> u64 {
    u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_words_and_three_a_message() {
        for (body, tokens) in [
            (r#"{}"#, 0),
            (r#"{"messages":[{"role":"user","content":"one two"}]}"#, 5),
            (r#"{"messages":[{"content":"a"},{"content":null},{}]}"#, 10),
            (
                r#"{"messages":[{"content":[{"type":"text","text":"a b"},{"type":"image_url"}]}]}"#,
                5,
            ),
            (r#"{"prompt":"one two three"}"#, 3),
            (r#"{"prompt":["one two","three"]}"#, 3),
            (r#"{"prompt":[[1,2],[3]]}"#, 3),
        ] {
            let asked: Asked<'_> = serde_json::from_str(body).unwrap();
            assert_eq!(asked.prompt_tokens(), tokens, "{body}");
        }
    }
}
