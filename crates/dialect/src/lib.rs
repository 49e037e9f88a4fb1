//! What is said on the wire: encode a request, decode an upstream answer; pure, no clock, no ids, no I/O.
//!
//! Between the two sides everything is OpenAI's chat API. [`ClientDialect`] is what a client speaks,
//! [`Dialect`] what a provider speaks; each of its
//! functions matches over all dialects, so that the compiler lists what a new one must answer.

mod anthropic;
mod client;
mod client_dialect;
mod compose;
mod counts;
mod endpoint;
mod error;
mod features;
mod framing;
mod json;
mod openai;
mod parts;
mod quirks;
mod request;
mod sse;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokens::Usage;

pub use anthropic::AnthropicDecoder;
pub use client::{Bill, ChunkTemplate, ErrorBody, usage_json};
pub use client_dialect::ClientDialect;
pub use endpoint::Endpoint;
pub use error::{DecodeError, FrameError, RequestError, UpstreamError, UsageFault};
pub use features::{Effort, Features, Thinking};
pub use framing::{Framer, Framing, LineFramer};
pub use openai::{
    Answer, Chunk, Delta, Edit, Ending, OpenAiDecoder, TextKind, TextRef, WireRequest,
};
pub use quirks::{Clamp, Convention, OutputLimitField, Pointer, Quirks, UsageHow};
pub use request::{ChatRequest, RequestLimits};
pub use sse::{DONE, DONE_EVENT, EVENT_BYTES_MAX, SseEvent, SseFramer, write_event};
pub use writer::{ChatWriter, StreamNames, StreamWriter};

/// A wire language that providers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's chat completions, and everybody who followed them.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
}

impl Dialect {
    /// Writes a request for a provider.
    ///
    /// # Errors
    /// A member that the provider does not support, named in `param`.
    pub fn encode(
        self,
        request: &ChatRequest<'_>,
        edit: &Edit<'_>,
        quirks: &Quirks,
    ) -> Result<WireRequest, RequestError> {
        match self {
            Self::OpenAi => openai::encode::encode(request, edit, quirks),
            Self::Anthropic => anthropic::encode::encode(request, edit, quirks),
        }
    }

    /// Reads the body of a 200 answer to a request that did not stream. `created` (Unix seconds)
    /// is for dialects whose answers do not say when they were made.
    ///
    /// # Errors
    /// Not an answer of this dialect, or an error inside it ([`DecodeError::Upstream`]).
    pub fn decode(self, body: Bytes, quirks: &Quirks, created: u64) -> Result<Answer, DecodeError> {
        match self {
            Self::OpenAi => openai::answer::decode(body, quirks),
            Self::Anthropic => anthropic::answer::decode(&body, created),
        }
    }

    /// Whether a request makes a model with `features` write output that is billed but not shown,
    /// or not in full.
    #[must_use]
    pub fn hides_output(self, request: &ChatRequest<'_>, features: &Features) -> bool {
        match self {
            // The provider's file says it of the model as a whole.
            Self::OpenAi => false,
            Self::Anthropic => anthropic::thinking::thinks(request, features),
        }
    }

    /// The status that an answer with an error should have had: where a provider answers that a
    /// request is wrong because its operator has not paid, it is the operator's trouble (402).
    #[must_use]
    pub fn cause(self, status: u16, error: &UpstreamError) -> u16 {
        match self {
            Self::OpenAi => status,
            Self::Anthropic => anthropic::cause(status, error),
        }
    }

    /// How its streams are cut into events.
    #[must_use]
    pub const fn framing(self) -> Framing {
        match self {
            Self::OpenAi | Self::Anthropic => Framing::Sse,
        }
    }

    /// A decoder for one stream that begins at `created` (Unix seconds).
    #[must_use]
    pub fn decoder(self, quirks: Arc<Quirks>, created: u64) -> Decoder {
        match self {
            Self::OpenAi => Decoder::OpenAi(Box::new(OpenAiDecoder::new(quirks))),
            Self::Anthropic => Decoder::Anthropic(Box::new(AnthropicDecoder::new(created))),
        }
    }
}

/// Decodes one stream of some dialect. Boxed, because decoders differ much in size.
#[derive(Debug)]
pub enum Decoder {
    /// OpenAI's.
    OpenAi(Box<OpenAiDecoder>),
    /// Anthropic's.
    Anthropic(Box<AnthropicDecoder>),
}

impl Decoder {
    /// Reads one event and adds what it means to `out`; the caller empties `out`. After the end of
    /// the stream nothing is read.
    ///
    /// # Errors
    /// An event that the dialect does not have. What came before stays valid.
    pub fn push(&mut self, event: SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        match self {
            Self::OpenAi(decoder) => decoder.push(event, out),
            Self::Anthropic(decoder) => decoder.push(&event, out),
        }
    }

    /// The usage reported so far: the last report, never the sum; a fault when that one is unusable.
    #[must_use]
    pub fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        match self {
            Self::OpenAi(decoder) => decoder.usage(),
            Self::Anthropic(decoder) => decoder.usage(),
        }
    }

    /// What the chunks of this stream have in common, once one with choices has come.
    #[must_use]
    pub fn template(&self) -> Option<&ChunkTemplate> {
        match self {
            Self::OpenAi(decoder) => decoder.template(),
            Self::Anthropic(decoder) => decoder.template(),
        }
    }

    /// How the stream has ended, if no more comes.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::OpenAi(decoder) => decoder.ending(),
            Self::Anthropic(decoder) => decoder.ending(),
        }
    }

    /// How many events were skipped because the dialect has none of their type.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        match self {
            Self::OpenAi(decoder) => decoder.skipped(),
            Self::Anthropic(decoder) => decoder.skipped(),
        }
    }
}
