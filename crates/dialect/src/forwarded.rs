//! Requests that are forwarded as they are, but for the model's name: what they ask for, and how their answers say what it took.
//!
//! Source of the shapes: OpenAI's API reference (embeddings, moderations, images, audio), and for
//! rerank those of Cohere v2, Jina and Voyage.

mod answer;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

pub use self::answer::ForwardedAnswer;
use crate::body::{Body, Kind, Reads, kind};
use crate::endpoint::Endpoint;
use crate::error::RequestError;
use crate::inputs::Inputs;
use crate::json::{self, Splice};
use crate::request::RequestLimits;

/// Documents that one search of a reranker covers (Cohere's pricing page).
const DOCUMENTS_PER_SEARCH: u64 = 100;
/// A document longer than this many tokens is searched as several (Cohere's pricing page).
const DOCUMENT_TOKENS_MAX: u64 = 500;
/// Most images that one request may ask for, as at OpenAI.
const IMAGES_MAX: u64 = 10;

/// A text that is read, and how many times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read<'a> {
    text: Cow<'a, str>,
    times: u64,
}

/// What a request asks for that is not counted in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Images to be made.
    pub images: u64,
    /// Characters to be read aloud.
    pub characters: u64,
    /// Searches, where no document is long.
    pub searches: u64,
    /// Searches at most.
    pub searches_max: u64,
}

/// A request that is sound as far as the gateway reads it; everything else is the provider's to judge.
#[derive(Clone, Debug)]
pub struct Forwarded<'a> {
    text: &'a str,
    /// `None` where the body does not name it.
    model_at: Option<Range<usize>>,
    model: Cow<'a, str>,
    stream: bool,
    stream_format_at: Option<Range<usize>>,
    texts: Vec<Read<'a>>,
    tokens: u64,
    inputs: u64,
    pieces: Pieces,
    size: Option<Cow<'a, str>>,
    quality: Option<Cow<'a, str>>,
    service_tier: Option<&'a str>,
    output_limit: Option<u64>,
}

/// The members that are read beside the texts, and what each must be.
const READ: Reads = &[
    ("model", &[Kind::Text]),
    ("stream", &[Kind::Bool]),
    ("n", &[Kind::Number]),
    ("size", &[Kind::Text]),
    ("quality", &[Kind::Text]),
    ("stream_format", &[Kind::Text]),
    ("service_tier", &[Kind::Text]),
];
/// The members that limit output, in tokens, by all their names.
const OUTPUT_LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
/// What is read of a request of a shape that nobody here knows, and what is looked at beside.
const READ_OF_UNKNOWN: Reads = &[("model", &[Kind::Text]), ("stream", &[Kind::Bool])];
const OTHERS_OF_UNKNOWN: [&str; 4] = [
    "n",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
];
/// The members with texts.
const TEXTS: [&str; 5] = ["input", "prompt", "query", "documents", "instructions"];

impl<'a> Forwarded<'a> {
    /// Reads the JSON of a request to an endpoint.
    ///
    /// # Errors
    /// Not JSON, a wrong shape, a number out of range, a member that is read given twice. The error
    /// names the parameter and never repeats what was sent.
    pub fn parse(
        endpoint: Endpoint,
        body: &'a [u8],
        limits: &RequestLimits,
    ) -> Result<Self, RequestError> {
        let body = Body::read(body, limits, READ, &TEXTS)?;
        let model = match usual_model(endpoint).filter(|_| body.get("model").is_none()) {
            Some(usual) => Cow::Borrowed(usual),
            None => body.model(limits)?,
        };
        let mut request = Self {
            text: body.text(),
            model,
            model_at: body.place("model"),
            stream: body.stream(),
            stream_format_at: body.place("stream_format"),
            texts: Vec::new(),
            tokens: 0,
            inputs: 1,
            pieces: Pieces::default(),
            size: body.string("size"),
            quality: body.string("quality"),
            service_tier: body.get("service_tier"),
            output_limit: None,
        };
        request.read(endpoint, &body)?;
        Ok(request)
    }

    /// Reads the JSON of a request of a shape that nobody here knows: all of it is taken for a text
    /// that the model reads.
    ///
    /// # Errors
    /// Not JSON, no model, a number out of range, a member that is read given twice.
    pub fn parse_unknown(body: &'a [u8], limits: &RequestLimits) -> Result<Self, RequestError> {
        let body = Body::read(body, limits, READ_OF_UNKNOWN, &OTHERS_OF_UNKNOWN)?;
        let number = |name: &'static str| match body.get(name).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(RequestError::param(
                name,
                format!("`{name}` must be a whole number that is not negative."),
            )),
        };
        let mut output_limit = None;
        // Realtime's word for as much as the model can. Source: OpenAI's API reference.
        let endless = |name| body.get(name) == Some(r#""inf""#);
        if !OUTPUT_LIMITS.into_iter().any(endless) {
            for name in OUTPUT_LIMITS {
                output_limit = number(name)?.max(output_limit);
            }
        }
        let choices = number("n")?.unwrap_or(1).max(1);
        Ok(Self {
            text: body.text(),
            model: body.model(limits)?,
            model_at: body.place("model"),
            stream: body.stream(),
            stream_format_at: None,
            texts: vec![Read {
                text: Cow::Borrowed(body.text()),
                times: 1,
            }],
            tokens: 0,
            inputs: choices,
            pieces: Pieces::default(),
            size: None,
            quality: None,
            service_tier: body.get("service_tier"),
            output_limit,
        })
    }

    fn read(&mut self, endpoint: Endpoint, body: &Body<'a>) -> Result<(), RequestError> {
        match endpoint {
            Endpoint::Embeddings => self.read_inputs(body),
            Endpoint::Moderations => self.read_moderation(body),
            Endpoint::Rerank => self.read_rerank(body),
            Endpoint::ImageGenerations | Endpoint::ImageEdits => {
                self.text_of(body, "prompt")?;
                self.pieces.images = match body.get("n").map(str::parse::<u64>) {
                    None => 1,
                    Some(Ok(count @ 1..=IMAGES_MAX)) => count,
                    Some(Ok(_) | Err(_)) => {
                        return Err(RequestError::param(
                            "n",
                            "`n` must be an integer from 1 to 10.",
                        ));
                    }
                };
                Ok(())
            }
            Endpoint::Speech => {
                self.text_of(body, "input")?;
                self.stream = body.string("stream_format").is_some_and(|how| how == "sse");
                let characters = self
                    .texts
                    .first()
                    .map_or(0, |read| read.text.chars().count());
                self.pieces.characters = u64::try_from(characters).unwrap_or(u64::MAX);
                if let Some(instructions) = body.string("instructions") {
                    self.push(instructions, 1);
                }
                Ok(())
            }
            // Their requests are forms, whose fields are given as JSON.
            Endpoint::Transcriptions | Endpoint::Translations => {
                if let Some(prompt) = body.string("prompt") {
                    self.push(prompt, 1);
                }
                Ok(())
            }
            // They have a request of their own.
            Endpoint::Chat | Endpoint::Completions => Ok(()),
        }
    }

    fn read_inputs(&mut self, body: &Body<'a>) -> Result<(), RequestError> {
        let Some(at) = body.span("input") else {
            return Err(missing("input", "a text, a list of texts, or tokens"));
        };
        let inputs = Inputs::read(self.text, &at, "input")?;
        self.tokens = inputs.tokens;
        self.inputs = u64::try_from(inputs.count).unwrap_or(u64::MAX);
        for text in inputs.texts {
            self.push(text, 1);
        }
        Ok(())
    }

    /// Texts, or parts as a chat has them. What else is in the parts (images) is read free of charge
    /// everywhere, and its address counts as text.
    fn read_moderation(&mut self, body: &Body<'a>) -> Result<(), RequestError> {
        let Some(at) = body.span("input") else {
            return Err(missing("input", "a text, a list of texts, or parts"));
        };
        let text = self.text;
        match kind(json::slice(text, &at)) {
            Kind::Text => self.push_literal(&at, 1),
            Kind::List => {
                for element in json::elements(text, at.start) {
                    self.push_literal(&element, 1);
                }
                self.inputs = u64::try_from(self.texts.len()).unwrap_or(u64::MAX);
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::Object => {
                return Err(missing("input", "a text, a list of texts, or parts"));
            }
        }
        if self.texts.is_empty() {
            return Err(missing("input", "a text, a list of texts, or parts"));
        }
        Ok(())
    }

    fn read_rerank(&mut self, body: &Body<'a>) -> Result<(), RequestError> {
        let Some(query) = body.string("query") else {
            return Err(missing("query", "a text"));
        };
        let list = body
            .span("documents")
            .filter(|at| matches!(kind(json::slice(self.text, at)), Kind::List));
        let Some(list) = list else {
            return Err(missing("documents", "a list of texts or objects"));
        };
        let text = self.text;
        let mut parts_max = 0_u64;
        let query_tokens = u64::try_from(query.len()).unwrap_or(u64::MAX);
        for document in json::elements(text, list.start) {
            let bytes = u64::try_from(document.len()).unwrap_or(u64::MAX);
            // A token is at least a byte, and every part is read beside the query.
            let parts = bytes
                .saturating_add(query_tokens)
                .div_ceil(DOCUMENT_TOKENS_MAX);
            parts_max = parts_max.saturating_add(parts.max(1));
            self.push_literal(&document, 1);
        }
        let documents = u64::try_from(self.texts.len()).unwrap_or(u64::MAX);
        if documents == 0 {
            return Err(missing("documents", "a list of texts or objects"));
        }
        self.inputs = documents;
        self.push(query, documents);
        self.pieces.searches = documents.div_ceil(DOCUMENTS_PER_SEARCH);
        self.pieces.searches_max = parts_max.div_ceil(DOCUMENTS_PER_SEARCH);
        Ok(())
    }

    fn text_of(&mut self, body: &Body<'a>, name: &'static str) -> Result<(), RequestError> {
        match body.string(name) {
            Some(text) if !text.is_empty() => {
                self.push(text, 1);
                Ok(())
            }
            Some(_) | None => Err(missing(name, "a text")),
        }
    }

    /// A text, or what is no text as its JSON.
    fn push_literal(&mut self, at: &Range<usize>, times: u64) {
        let text = json::unescape(json::inside(json::slice(self.text, at)));
        self.push(text, times);
    }

    fn push(&mut self, text: Cow<'a, str>, times: u64) {
        self.texts.push(Read { text, times });
    }

    /// The service tier asked for, as JSON.
    #[must_use]
    pub const fn service_tier(&self) -> Option<&str> {
        self.service_tier
    }

    /// The model asked for.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be a stream of events.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// What is asked for that is not counted in tokens.
    #[must_use]
    pub const fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// How many inputs are read: at least 1.
    #[must_use]
    pub const fn inputs(&self) -> u64 {
        self.inputs
    }

    /// Tokens of what is read, where `count` says how many a text has. Tokens given by their numbers
    /// count as they are.
    pub fn tokens(&self, mut count: impl FnMut(&str) -> u64) -> u64 {
        self.texts.iter().fold(self.tokens, |sum, read| {
            sum.saturating_add(count(&read.text).saturating_mul(read.times))
        })
    }

    /// The largest limit of output that a request of an unknown shape names, in tokens.
    #[must_use]
    pub const fn output_limit(&self) -> Option<u64> {
        self.output_limit
    }

    /// Width and height of the images asked for, as in `1024x1024`.
    #[must_use]
    pub fn size(&self) -> Option<&str> {
        self.size.as_deref()
    }

    /// The quality asked for, as in `hd`.
    #[must_use]
    pub fn quality(&self) -> Option<&str> {
        self.quality.as_deref()
    }

    /// The body with the provider's name of the model; every other byte as the client sent it.
    #[must_use]
    pub fn encode(&self, upstream_model: &str) -> Bytes {
        Bytes::from(self.named(upstream_model).apply(self.text))
    }

    /// The same, asking for audio as events, whatever the client asked for.
    #[must_use]
    pub fn encode_as_events(&self, upstream_model: &str) -> Bytes {
        let mut splice = self.named(upstream_model);
        match &self.stream_format_at {
            Some(at) => splice.replace(at.clone(), r#""sse""#.to_owned()),
            None => splice.insert(self.inside(), r#""stream_format":"sse","#.to_owned()),
        }
        Bytes::from(splice.apply(self.text))
    }

    fn named(&self, upstream_model: &str) -> Splice<'_> {
        let mut splice = Splice::default();
        let model = json::quote(upstream_model);
        match &self.model_at {
            Some(at) => splice.replace(at.clone(), model),
            None => splice.insert(self.inside(), format!(r#""model":{model},"#)),
        }
        splice
    }

    /// The place of a first member. The object is not empty: it says what is to be read.
    fn inside(&self) -> usize {
        self.text.len() - self.text.trim_ascii_start().len() + 1
    }
}

/// The model that is meant where none is named. Source: OpenAI's API reference.
const fn usual_model(endpoint: Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::Moderations => Some("omni-moderation-latest"),
        Endpoint::ImageGenerations => Some("dall-e-2"),
        Endpoint::ImageEdits => Some("gpt-image-1.5"),
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Rerank
        | Endpoint::Speech
        | Endpoint::Transcriptions
        | Endpoint::Translations => None,
    }
}

fn missing(name: &'static str, shape: &str) -> RequestError {
    RequestError::param(name, format!("`{name}` must be {shape}, and not empty."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(endpoint: Endpoint, json: &str) -> Result<Forwarded<'_>, RequestError> {
        Forwarded::parse(endpoint, json.as_bytes(), &RequestLimits::default())
    }

    /// Bytes in place of tokens.
    fn bytes(request: &Forwarded<'_>) -> u64 {
        request.tokens(|text| text.len() as u64)
    }

    #[test]
    fn only_the_models_name_changes() {
        let json = r#"{ "input" : "a\u0041", "model":"m" ,"dimensions": 1.10 }"#;
        let request = parse(Endpoint::Embeddings, json).unwrap();
        assert_eq!(bytes(&request), 2);
        let sent = String::from_utf8(request.encode("real \"m\"").to_vec()).unwrap();
        assert_eq!(sent, json.replace(r#""m""#, r#""real \"m\"""#));
    }

    #[test]
    fn audio_is_asked_for_as_events_whatever_the_client_says() {
        for (json, expected) in [
            (
                r#"{"model":"m","input":"a"}"#,
                r#"{"stream_format":"sse","model":"real","input":"a"}"#,
            ),
            (
                r#"{"model":"m","input":"a","stream_format":"audio"}"#,
                r#"{"model":"real","input":"a","stream_format":"sse"}"#,
            ),
        ] {
            let request = parse(Endpoint::Speech, json).unwrap();
            assert_eq!(request.encode_as_events("real"), expected);
        }
    }

    #[test]
    fn where_no_model_is_named_the_usual_one_is_meant() {
        let sent = |json: &str| {
            let request = parse(Endpoint::Moderations, json).unwrap();
            assert_eq!(request.model(), "omni-moderation-latest");
            String::from_utf8(request.encode("real").to_vec()).unwrap()
        };
        assert_eq!(
            sent(r#" {"input":"a"}"#),
            r#" {"model":"real","input":"a"}"#
        );
        assert_eq!(
            sent(r#"{"model":null,"input":"a"}"#),
            r#"{"model":"real","input":"a"}"#
        );
        let json = r#"{"prompt":"a"}"#;
        assert_eq!(
            parse(Endpoint::ImageEdits, json).unwrap().model(),
            "gpt-image-1.5"
        );
        assert!(parse(Endpoint::Embeddings, r#"{"input":"a"}"#).is_err());
    }

    #[test]
    fn tokens_by_number_count_as_they_are() {
        let request = parse(
            Endpoint::Embeddings,
            r#"{"model":"m","input":[[1,22],[333]]}"#,
        );
        let request = request.unwrap();
        assert_eq!((bytes(&request), request.inputs()), (3, 2));
    }

    #[test]
    fn a_query_is_read_with_every_document() {
        let json = r#"{"model":"m","query":"four","documents":["ab",{"text":"x"}],"top_n":1}"#;
        let request = parse(Endpoint::Rerank, json).unwrap();
        assert_eq!(bytes(&request), 2 + 12 + 2 * 4);
        let pieces = request.pieces();
        assert_eq!((pieces.searches, pieces.searches_max), (1, 1));
        let long = "x".repeat(500 * 120);
        let json = format!(r#"{{"model":"m","query":"four","documents":["{long}"]}}"#);
        let request = parse(Endpoint::Rerank, &json).unwrap();
        assert_eq!(
            (request.pieces().searches, request.pieces().searches_max),
            (1, 2)
        );
    }

    #[test]
    fn of_an_unknown_shape_all_is_read() {
        let parse = |json: &'static str| {
            Forwarded::parse_unknown(json.as_bytes(), &RequestLimits::default())
        };
        let json = r#"{"model":"m","max_tokens":5,"max_output_tokens":7,"stream":true,"n":2}"#;
        let request = parse(json).unwrap();
        assert_eq!(bytes(&request), json.len() as u64);
        let read = (request.output_limit(), request.stream(), request.inputs());
        assert_eq!(read, (Some(7), true, 2));
        assert_eq!(parse(r#"{"model":"m"}"#).unwrap().output_limit(), None);
        let endless = parse(r#"{"model":"m","max_output_tokens":"inf","max_tokens":5}"#);
        assert_eq!(endless.unwrap().output_limit(), None);
        for wrong in [
            r#"{"model":"m","model":"n"}"#,
            r#"{"model":"m","Model":"n"}"#,
            r#"{"model":null}"#,
            r#"{"model":"m","n":-1}"#,
            r#"{"model":"m","max_tokens":1.5}"#,
            r#"{"model":"m","max_tokens":1,"max_tokens":2}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn images_and_characters_are_counted() {
        let json = r#"{"model":"m","prompt":"a cat","n":3,"size":"1024x1024","quality":"hd"}"#;
        let request = parse(Endpoint::ImageGenerations, json).unwrap();
        assert_eq!(request.pieces().images, 3);
        assert_eq!(
            (request.size(), request.quality()),
            (Some("1024x1024"), Some("hd"))
        );
        let json = r#"{"model":"m","input":"h\u00e9!","voice":"x","stream_format":"sse"}"#;
        let request = parse(Endpoint::Speech, json).unwrap();
        assert_eq!(request.pieces().characters, 3);
        assert!(request.stream());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (endpoint, json, param) in [
            (Endpoint::Embeddings, r#"{"model":"m"}"#, Some("input")),
            (Endpoint::Embeddings, r#"{"input":"a"}"#, Some("model")),
            (
                Endpoint::Embeddings,
                r#"{"model":"m","input":"a","Model":"n"}"#,
                Some("model"),
            ),
            (
                Endpoint::Embeddings,
                r#"{"model":"m","input":"a","INPUT":"b"}"#,
                Some("input"),
            ),
            (Endpoint::Embeddings, r#"["model"]"#, None),
            (
                Endpoint::Moderations,
                r#"{"model":"m","input":[]}"#,
                Some("input"),
            ),
            (
                Endpoint::Rerank,
                r#"{"model":"m","query":"a","documents":[]}"#,
                Some("documents"),
            ),
            (
                Endpoint::Rerank,
                r#"{"model":"m","documents":["a"]}"#,
                Some("query"),
            ),
            (
                Endpoint::ImageGenerations,
                r#"{"model":"m","prompt":"a","n":11}"#,
                Some("n"),
            ),
            (
                Endpoint::ImageGenerations,
                r#"{"model":"m","prompt":""}"#,
                Some("prompt"),
            ),
            (
                Endpoint::Speech,
                r#"{"model":"m","input":["a"]}"#,
                Some("input"),
            ),
        ] {
            let error = parse(endpoint, json).expect_err(json);
            assert_eq!(error.param.as_deref(), param, "{json}");
        }
    }
}
