//! What is said on the wire: encode a request, decode an upstream answer; pure, no clock, no ids, no I/O.
//!
//! Between the two sides everything is OpenAI's chat API. [`ClientDialect`] is what a client speaks,
//! [`Dialect`] what a provider speaks; each of its
//! functions matches over all dialects, so that the compiler lists what a new one must answer.

mod anthropic;
mod bedrock;
mod body;
mod client;
mod client_dialect;
mod cohere;
mod compose;
mod counts;
mod endpoint;
mod error;
mod event_stream;
mod features;
mod forwarded;
mod framing;
mod gemini;
mod inputs;
mod json;
mod messages;
mod object;
mod ollama;
mod openai;
mod origin;
mod pair;
mod parts;
mod quirks;
mod request;
mod responses;
mod service_tier;
mod source;
mod sse;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokens::Usage;

use anthropic::encode::Host;

pub use anthropic::{AnthropicDecoder, ForwardDecoder};
pub use bedrock::BedrockDecoder;
pub use client::{Bill, ChunkTemplate, ErrorBody, usage_json};
pub use client_dialect::ClientDialect;
pub use cohere::CohereDecoder;
pub use endpoint::Endpoint;
pub use error::{DecodeError, FrameError, RequestError, UpstreamError, UsageFault};
pub use event_stream::EventStreamFramer;
pub use features::{Effort, Features, Thinking};
pub use forwarded::{Forwarded, ForwardedAnswer, Pieces};
pub use framing::{Framer, Framing, LineFramer};
pub use gemini::GeminiDecoder;
pub use inputs::Inputs;
pub use messages::{Composed, Composing, MessagesRequest};
pub use ollama::OllamaDecoder;
pub use openai::{
    Answer, Chunk, Delta, Edit, Ending, OpenAiDecoder, TextKind, TextRef, WireRequest,
};
pub use origin::Origin;
pub use pair::{ClientRequest, NativeEdit, Pair};
pub use quirks::{Clamp, Convention, OutputLimitField, Pointer, Quirks, ResponsesApi, UsageHow};
pub use request::{ChatRequest, RequestLimits};
pub use responses::{
    FinishedResponse, ForwardResponses, ResponsesRequest, Searches, items_of, listed_input,
};
pub use sse::{DONE, DONE_EVENT, EVENT_BYTES_MAX, SseEvent, SseFramer, write_event};
pub use writer::{
    ChatWriter, Keep, MessagesStream, NativeMessagesStream, NativeResponsesStream, ResponsesStream,
    StreamNames, StreamWriter,
};

/// A wire language that providers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's chat completions, and everybody who followed them.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// The same as Vertex AI serves it: other addresses, and the version in the body.
    AnthropicVertex,
    /// Cohere's chat API v2.
    Cohere,
    /// Ollama's own.
    Ollama,
    /// Google's generateContent.
    Gemini,
    /// Amazon Bedrock's Converse.
    Bedrock,
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
            Self::Anthropic => anthropic::encode::encode(request, edit, quirks, Host::Own),
            Self::AnthropicVertex => anthropic::encode::encode(request, edit, quirks, Host::Vertex),
            Self::Cohere => cohere::encode::encode(request, edit, quirks),
            Self::Ollama => ollama::encode::encode(request, edit, quirks),
            Self::Gemini => gemini::encode::encode(request, edit, quirks),
            Self::Bedrock => bedrock::encode::encode(request, edit, quirks),
        }
    }

    /// Reads the body of a 200 answer to a request that did not stream. `origin` is for dialects
    /// whose answers do not say when they were made, or what they are called.
    ///
    /// # Errors
    /// Not an answer of this dialect, or an error inside it ([`DecodeError::Upstream`]).
    pub fn decode(
        self,
        body: Bytes,
        quirks: &Quirks,
        origin: impl Into<Origin>,
    ) -> Result<Answer, DecodeError> {
        let origin = origin.into();
        match self {
            Self::OpenAi => openai::answer::decode(body, quirks),
            Self::Anthropic | Self::AnthropicVertex => {
                anthropic::answer::decode(&body, origin.created)
            }
            Self::Cohere => cohere::answer::decode(&body, &origin),
            Self::Ollama => ollama::answer::decode(&body, &origin),
            Self::Gemini => gemini::answer::decode(&body, &origin),
            Self::Bedrock => bedrock::answer::decode(&body, &origin),
        }
    }

    /// Whether a request makes a model with `features` write output that is billed but not shown,
    /// or not in full.
    #[must_use]
    pub fn hides_output(self, request: &ChatRequest<'_>, features: &Features) -> bool {
        match self {
            // The provider's file says it of the model as a whole.
            Self::OpenAi => false,
            // What is thought is shown.
            Self::Cohere | Self::Ollama => false,
            Self::Anthropic | Self::AnthropicVertex | Self::Bedrock => {
                anthropic::thinking::thinks(request, features)
            }
            Self::Gemini => gemini::thinking::thinks(request, features),
        }
    }

    /// The status that an answer with an error should have had: where a provider answers that a
    /// request is wrong because its operator has not paid, it is the operator's trouble (402).
    #[must_use]
    pub fn cause(self, status: u16, error: &UpstreamError) -> u16 {
        match self {
            Self::OpenAi | Self::Cohere | Self::Ollama => status,
            Self::Anthropic | Self::AnthropicVertex => anthropic::cause(status, error),
            Self::Gemini => gemini::cause(status, error),
            Self::Bedrock => bedrock::cause(status, error),
        }
    }

    /// How its streams are cut into events.
    #[must_use]
    pub const fn framing(self) -> Framing {
        match self {
            Self::OpenAi
            | Self::Anthropic
            | Self::AnthropicVertex
            | Self::Cohere
            | Self::Gemini => Framing::Sse,
            Self::Ollama => Framing::Lines,
            Self::Bedrock => Framing::AwsEventStream,
        }
    }

    /// A decoder for one stream; `origin` as for [`decode`](Self::decode).
    #[must_use]
    pub fn decoder(self, quirks: Arc<Quirks>, origin: impl Into<Origin>) -> Decoder {
        let origin = origin.into();
        match self {
            Self::OpenAi => Decoder::OpenAi(Box::new(OpenAiDecoder::new(quirks))),
            Self::Anthropic | Self::AnthropicVertex => {
                Decoder::Anthropic(Box::new(AnthropicDecoder::new(origin.created)))
            }
            Self::Cohere => Decoder::Cohere(Box::new(CohereDecoder::new(origin))),
            Self::Ollama => Decoder::Ollama(Box::new(OllamaDecoder::new(origin))),
            Self::Gemini => Decoder::Gemini(Box::new(GeminiDecoder::new(origin))),
            Self::Bedrock => Decoder::Bedrock(Box::new(BedrockDecoder::new(origin))),
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
    /// Cohere's.
    Cohere(Box<CohereDecoder>),
    /// Ollama's.
    Ollama(Box<OllamaDecoder>),
    /// Google's.
    Gemini(Box<GeminiDecoder>),
    /// Anthropic's, whose events travel to a client that speaks it too.
    Forward(Box<ForwardDecoder>),
    /// OpenAI's responses, whose events travel to a client that speaks them too.
    ForwardResponses(Box<ForwardResponses>),
    /// Bedrock's.
    Bedrock(Box<BedrockDecoder>),
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
            Self::Cohere(decoder) => decoder.push(&event, out),
            Self::Ollama(decoder) => decoder.push(&event, out),
            Self::Gemini(decoder) => decoder.push(&event, out),
            Self::Forward(decoder) => decoder.push(event, out),
            Self::ForwardResponses(decoder) => decoder.push(event, out),
            Self::Bedrock(decoder) => decoder.push(&event, out),
        }
    }

    /// The usage reported so far: the last report, never the sum; a fault when that one is unusable.
    #[must_use]
    pub fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        match self {
            Self::OpenAi(decoder) => decoder.usage(),
            Self::Anthropic(decoder) => decoder.usage(),
            Self::Cohere(decoder) => decoder.usage(),
            Self::Ollama(decoder) => decoder.usage(),
            Self::Gemini(decoder) => decoder.usage(),
            Self::Forward(decoder) => decoder.usage(),
            Self::ForwardResponses(decoder) => decoder.usage(),
            Self::Bedrock(decoder) => decoder.usage(),
        }
    }

    /// What the chunks of this stream have in common, once one with choices has come.
    #[must_use]
    pub fn template(&self) -> Option<&ChunkTemplate> {
        match self {
            Self::OpenAi(decoder) => decoder.template(),
            Self::Anthropic(decoder) => decoder.template(),
            Self::Cohere(decoder) => decoder.template(),
            Self::Ollama(decoder) => decoder.template(),
            Self::Gemini(decoder) => decoder.template(),
            Self::Forward(_) | Self::ForwardResponses(_) => None,
            Self::Bedrock(decoder) => decoder.template(),
        }
    }

    /// How the stream has ended, if no more comes.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::OpenAi(decoder) => decoder.ending(),
            Self::Anthropic(decoder) => decoder.ending(),
            Self::Cohere(decoder) => decoder.ending(),
            Self::Ollama(decoder) => decoder.ending(),
            Self::Gemini(decoder) => decoder.ending(),
            Self::Forward(decoder) => decoder.ending(),
            Self::ForwardResponses(decoder) => decoder.ending(),
            Self::Bedrock(decoder) => decoder.ending(),
        }
    }

    /// How many events were skipped because the dialect has none of their type.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        match self {
            Self::OpenAi(decoder) => decoder.skipped(),
            Self::Anthropic(decoder) => decoder.skipped(),
            Self::Cohere(decoder) => decoder.skipped(),
            // Its lines have no types.
            Self::Ollama(_) => 0,
            Self::Gemini(decoder) => decoder.skipped(),
            Self::Forward(decoder) => decoder.skipped(),
            Self::ForwardResponses(decoder) => decoder.skipped(),
            Self::Bedrock(decoder) => decoder.skipped(),
        }
    }
}
