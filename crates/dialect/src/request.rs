//! The client's chat request: parsed once and borrowed, only for what the gateway needs to know.
//!
//! Source of the shape: OpenAI's API reference, "Create chat completion".

use std::borrow::Cow;
use std::ops::Range;

use crate::body::{Body, Kind, Member, Reads, kind};
use crate::endpoint::Endpoint;
use crate::error::RequestError;
use crate::inputs::Inputs;
use crate::json;

/// Bounds on a request body. Its size in bytes is bounded where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most brackets inside each other; the body itself is the first.
    pub depth_max: usize,
    /// Most top-level members.
    pub members_max: usize,
    /// Most messages.
    pub messages_max: usize,
    /// Most bytes of the model name.
    pub model_bytes_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            members_max: 1024,
            messages_max: 65_536,
            model_bytes_max: 256,
        }
    }
}

/// A chat request that is sound as far as the gateway reads it; everything else is the provider's to judge.
#[derive(Clone, Debug)]
pub struct ChatRequest<'a> {
    body: Body<'a>,
    model: Cow<'a, str>,
    stream: bool,
    include_usage: bool,
    output_limit: Option<u64>,
    choices: u32,
    messages: usize,
    unwatchable: Option<&'static str>,
    prompt: Option<Inputs<'a>>,
}

/// The members that are read, and what each may be besides `null`.
const READ: Reads = &[
    ("model", &[Kind::Text]),
    ("messages", &[Kind::List]),
    ("stream", &[Kind::Bool]),
    ("stream_options", &[Kind::Object]),
    ("max_tokens", &[Kind::Number]),
    ("max_completion_tokens", &[Kind::Number]),
    ("n", &[Kind::Number]),
    ("tools", &[Kind::List]),
    ("functions", &[Kind::List]),
    ("response_format", &[Kind::Object]),
    ("modalities", &[Kind::List]),
    ("audio", &[Kind::Object]),
    ("prediction", &[Kind::Object]),
    ("user", &[Kind::Text]),
    // Groq and OpenRouter: reasoning that is billed but not shown.
    ("reasoning_format", &[Kind::Text]),
    ("include_reasoning", &[Kind::Bool]),
    ("reasoning", &[Kind::Object]),
];

/// The members of a text completion (`/v1/completions`) that are read; `prompt` is read apart.
const READ_OF_COMPLETIONS: Reads = &[
    ("model", &[Kind::Text]),
    ("stream", &[Kind::Bool]),
    ("stream_options", &[Kind::Object]),
    ("max_tokens", &[Kind::Number]),
    ("max_completion_tokens", &[Kind::Number]),
    ("n", &[Kind::Number]),
    ("best_of", &[Kind::Number]),
    ("echo", &[Kind::Bool]),
    ("suffix", &[Kind::Text]),
    ("user", &[Kind::Text]),
];

/// Most choices that one request may ask for, as at OpenAI.
const CHOICES_MAX: u64 = 128;

impl<'a> ChatRequest<'a> {
    /// Reads a request body.
    ///
    /// # Errors
    /// What CONTRACT 3 answers with 400: not JSON, a wrong shape, a number out of range, a member
    /// that is read given twice. The error names the parameter and never repeats what was sent.
    pub fn parse(body: &'a [u8], limits: &RequestLimits) -> Result<Self, RequestError> {
        let mut request = Self::open(body, limits, READ, &[])?;
        request.messages = request.read_messages(limits)?;
        request.unwatchable = request.read_unwatchable();
        Ok(request)
    }

    /// Reads the body of a text completion: a `prompt` in place of messages. What it asks for is read
    /// and sent on as a chat's.
    ///
    /// Source of the shape: OpenAI's API reference, "Create completion".
    ///
    /// # Errors
    /// As [`ChatRequest::parse`].
    pub fn parse_completion(body: &'a [u8], limits: &RequestLimits) -> Result<Self, RequestError> {
        let mut request = Self::open(body, limits, READ_OF_COMPLETIONS, &["prompt"])?;
        let Some(at) = request.span("prompt") else {
            return Err(RequestError::param(
                "prompt",
                "`prompt` is missing: send a text, a list of texts, or tokens.",
            ));
        };
        let mut prompt = Inputs::read(request.body.text(), &at, "prompt")?;
        if let Some(at) = request.span("suffix") {
            // The model reads what comes after the gap too.
            let suffix = json::unescape(json::inside(json::slice(request.body.text(), &at)));
            prompt.texts.push(suffix);
        }
        let best_of = match request.get("best_of") {
            None => 1,
            Some(json) => read_choices("best_of", json)?,
        };
        if best_of > request.choices {
            request.unwatchable = Some("best_of");
        }
        if request.echo() {
            // The prompt comes back as text that nobody bills.
            request.unwatchable = Some("echo");
        }
        let prompts = u32::try_from(prompt.count).unwrap_or(u32::MAX);
        request.choices = request.choices.max(best_of).saturating_mul(prompts.max(1));
        request.prompt = Some(prompt);
        Ok(request)
    }

    /// Reads what chats and text completions have in common; `read` is what their members must be.
    fn open(
        body: &'a [u8],
        limits: &RequestLimits,
        read: Reads,
        others: &[&'static str],
    ) -> Result<Self, RequestError> {
        let body = Body::read(body, limits, read, others)?;
        let mut request = Self {
            model: body.model(limits)?,
            stream: body.stream(),
            body,
            include_usage: false,
            output_limit: None,
            choices: 1,
            messages: 0,
            unwatchable: None,
            prompt: None,
        };
        request.include_usage = request.stream && request.read_include_usage()?;
        request.output_limit = request.read_output_limit()?;
        if let Some(json) = request.get("n") {
            request.choices = read_choices("n", json)?;
        }
        Ok(request)
    }

    fn read_messages(&self, limits: &RequestLimits) -> Result<usize, RequestError> {
        let wrong = |message: &'static str| Err(RequestError::param("messages", message));
        let Some(list) = self.span("messages") else {
            return wrong("`messages` is missing: send a list of at least one message.");
        };
        let mut count = 0;
        for message in json::elements(self.body.text(), list.start) {
            count += 1;
            if count > limits.messages_max {
                return wrong("`messages` has too many messages.");
            }
            if kind(json::slice(self.body.text(), &message)) != Kind::Object {
                return wrong("Every message must be an object.");
            }
            for member in json::members(self.body.text(), message.start) {
                let value = kind(json::slice(self.body.text(), &member.value));
                match member.name(self.body.text()).as_ref() {
                    "role" if value != Kind::Text => return wrong("`role` must be a string."),
                    "content" if !matches!(value, Kind::Text | Kind::List | Kind::Null) => {
                        return wrong("`content` must be a string or a list of parts.");
                    }
                    _ => {}
                }
            }
        }
        if count == 0 {
            return wrong("`messages` is empty: send at least one message.");
        }
        Ok(count)
    }

    fn read_include_usage(&self) -> Result<bool, RequestError> {
        let Some(options) = self.span("stream_options") else {
            return Ok(false);
        };
        let mut asked = None;
        for member in json::members(self.body.text(), options.start) {
            if member.name(self.body.text()) != "include_usage" {
                continue;
            }
            let value = json::slice(self.body.text(), &member.value);
            let wrong = match kind(value) {
                Kind::Bool | Kind::Null => asked.is_some(),
                Kind::Number | Kind::Text | Kind::List | Kind::Object => true,
            };
            if wrong {
                return Err(RequestError::param(
                    "stream_options.include_usage",
                    "`include_usage` must be given once, as true or false.",
                ));
            }
            asked = Some(value == "true");
        }
        Ok(asked.unwrap_or(false))
    }

    fn read_output_limit(&self) -> Result<Option<u64>, RequestError> {
        match (
            self.body.limit("max_tokens")?,
            self.body.limit("max_completion_tokens")?,
        ) {
            (Some(old), Some(new)) if old != new => Err(RequestError::param(
                "max_tokens",
                "`max_tokens` and `max_completion_tokens` differ: send one of them.",
            )),
            (old, new) => Ok(new.or(old)),
        }
    }

    fn read_unwatchable(&self) -> Option<&'static str> {
        let beyond_text = |list: Range<usize>| {
            json::elements(self.body.text(), list.start).any(|item| {
                json::unescape(json::inside(json::slice(self.body.text(), &item))) != "text"
            })
        };
        if self.span("modalities").is_some_and(beyond_text) {
            return Some("modalities");
        }
        if self.get("prediction").is_some() {
            return Some("prediction");
        }
        if self.get("include_reasoning") == Some("false") {
            return Some("include_reasoning");
        }
        let hidden = |json: &str| json::unescape(json::inside(json)) == "hidden";
        if self.get("reasoning_format").is_some_and(hidden) {
            return Some("reasoning_format");
        }
        let excluded = |json: &str| {
            json::find(json, &["exclude".into()]).is_some_and(|at| json::slice(json, &at) == "true")
        };
        self.get("reasoning")
            .is_some_and(excluded)
            .then_some("reasoning")
    }

    /// The body as the client sent it.
    #[must_use]
    pub const fn body(&self) -> &'a str {
        self.body.text()
    }

    /// The model asked for: 1 to 256 bytes (`model_bytes_max`), no control characters.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the client asked for the usage chunk of a stream.
    #[must_use]
    pub const fn include_usage(&self) -> bool {
        self.include_usage
    }

    /// The client's own limit on output tokens of each choice: 1 to `u32::MAX`.
    #[must_use]
    pub const fn output_limit(&self) -> Option<u64> {
        self.output_limit
    }

    /// How many choices are to be generated (`n`): 1 to 128. The output limit holds for each.
    #[must_use]
    pub const fn choices(&self) -> u32 {
        self.choices
    }

    /// How many messages there are: at least 1.
    #[must_use]
    pub const fn messages(&self) -> usize {
        self.messages
    }

    /// The parameter that makes output which is billed but cannot be counted as it passes: audio and
    /// image output, predictions (the rejected tokens), reasoning that is not shown.
    ///
    /// Such a request holds its worst case (DESIGN 3, "Holds").
    #[must_use]
    pub const fn unwatchable(&self) -> Option<&'static str> {
        self.unwatchable
    }

    /// Which of the two it is.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        match self.prompt {
            Some(_) => Endpoint::Completions,
            None => Endpoint::Chat,
        }
    }

    /// What a text completion goes on from; `None` of a chat.
    #[must_use]
    pub const fn prompt(&self) -> Option<&Inputs<'a>> {
        self.prompt.as_ref()
    }

    /// Whether the prompt of a text completion comes back before the output.
    #[must_use]
    pub fn echo(&self) -> bool {
        self.get("echo") == Some("true")
    }

    /// The JSON of a top-level member, as sent; the last one where it is given twice. `null` counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.body.get(name)
    }

    pub(crate) fn members(&self) -> &[Member<'a>] {
        self.body.members()
    }

    pub(crate) fn span(&self, name: &str) -> Option<Range<usize>> {
        self.body.span(name)
    }
}

/// A number of choices: 1 to 128.
fn read_choices(name: &'static str, json: &str) -> Result<u32, RequestError> {
    match json.parse::<u64>() {
        Ok(count @ 1..=CHOICES_MAX) => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        Ok(_) | Err(_) => Err(RequestError::param(
            name,
            format!("`{name}` must be an integer from 1 to 128."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(u32, Option<&'static str>, usize), Option<String>> {
        match ChatRequest::parse_completion(json.as_bytes(), &RequestLimits::default()) {
            Ok(request) => {
                assert_eq!(request.endpoint(), Endpoint::Completions);
                let prompts = request.prompt().map_or(0, |prompt| prompt.count);
                Ok((request.choices(), request.unwatchable(), prompts))
            }
            Err(error) => Err(error.param.map(Cow::into_owned)),
        }
    }

    #[test]
    fn every_prompt_has_choices_of_its_own_and_the_best_of_many_costs_many() {
        for (more, expected) in [
            (r#""prompt":"a""#, Ok((1, None, 1))),
            (r#""prompt":"a","n":3"#, Ok((3, None, 1))),
            (r#""prompt":["a","b"],"n":3"#, Ok((6, None, 2))),
            (r#""prompt":[1,2,3]"#, Ok((1, None, 1))),
            (
                r#""prompt":[[1],[2]],"best_of":4"#,
                Ok((8, Some("best_of"), 2)),
            ),
            (r#""prompt":"a","n":2,"best_of":2"#, Ok((2, None, 1))),
            (r#""prompt":"a","echo":true"#, Ok((1, Some("echo"), 1))),
            (r#""prompt":"a","suffix":"z""#, Ok((1, None, 1))),
            (r#""prompt":"""#, Ok((1, None, 1))),
            (r#""prompt":null"#, Err(Some("prompt".to_owned()))),
            (
                r#""prompt":"a","best_of":0"#,
                Err(Some("best_of".to_owned())),
            ),
            (
                r#""prompt":"a","Prompt":"b""#,
                Err(Some("prompt".to_owned())),
            ),
            (r#""prompt":"a","echo":1"#, Err(Some("echo".to_owned()))),
            (r#""messages":[]"#, Err(Some("prompt".to_owned()))),
        ] {
            let json = format!(r#"{{"model":"m",{more}}}"#);
            assert_eq!(read(&json), expected, "{json}");
        }
    }
}
