//! The stream as its client reads it: chunks, the bill, the end, and the end with an error.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use crate::client::{Bill, ChunkTemplate, ErrorBody, usage_json};
use crate::client_dialect::ClientDialect;
use crate::messages::{MessagesWriter, NativeMessagesWriter};
use crate::openai::Chunk;
use crate::origin::Origin;
use crate::responses::{NativeResponsesWriter, ResponsesWriter};
use crate::sse::write_event;

/// What a stream is called where its provider does not say.
#[derive(Clone, Debug)]
pub struct StreamNames {
    /// Its id is the gateway's of the request, `req_…`.
    pub origin: Origin,
    /// The time now, in Unix seconds: asked when an answer is complete.
    pub clock: fn() -> u64,
    /// What a response repeats of its request; empty for other dialects.
    pub repeated: String,
    /// The service tier that a response says it has until its provider says which, as JSON; empty
    /// for other dialects.
    pub tier: String,
    /// Who keeps it: somebody, and [`StreamWriter::kept`] gives it out once it is over.
    pub keep: Keep,
}

/// Who keeps a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nobody.
    #[default]
    Nobody,
    /// Its provider, where it says so.
    Provider,
    /// The gateway.
    Gateway,
}

/// Writes one stream in a client's dialect.
#[derive(Debug)]
pub enum StreamWriter {
    /// OpenAI's chat completions.
    Chat(ChatWriter),
    /// Anthropic's Messages, composed out of chunks.
    Messages(MessagesStream),
    /// Anthropic's Messages, as the provider sends them.
    NativeMessages(NativeMessagesStream),
    /// OpenAI's Responses, composed out of chunks.
    Responses(ResponsesStream),
    /// OpenAI's Responses, as the provider sends them.
    NativeResponses(NativeResponsesStream),
}

/// Hands on the events of one response.
#[derive(Debug)]
pub struct NativeResponsesStream(Box<NativeResponsesWriter>);

/// Composes the events of one response.
#[derive(Debug)]
pub struct ResponsesStream(Box<ResponsesWriter>);

/// Composes the events of one message.
#[derive(Debug)]
pub struct MessagesStream(Box<MessagesWriter>);

/// Hands on the events of one message.
#[derive(Debug)]
pub struct NativeMessagesStream(Box<NativeMessagesWriter>);

impl StreamWriter {
    /// A stream of chat chunks; usage only for whoever asked.
    #[must_use]
    pub fn chat(names: StreamNames, include_usage: bool) -> Self {
        Self::Chat(ChatWriter {
            names,
            include_usage,
            usage_sent: false,
        })
    }

    /// A stream of a message's events out of chunks.
    pub(crate) fn messages(names: StreamNames) -> Self {
        Self::Messages(MessagesStream(Box::new(MessagesWriter::new(names))))
    }

    /// A stream of a message's events as they come.
    pub(crate) fn native_messages(names: StreamNames) -> Self {
        Self::NativeMessages(NativeMessagesStream(Box::new(NativeMessagesWriter::new(
            names,
        ))))
    }

    /// A stream of a response's events out of chunks.
    pub(crate) fn responses(names: StreamNames) -> Self {
        Self::Responses(ResponsesStream(Box::new(ResponsesWriter::new(names))))
    }

    /// A stream of a response's events as they come.
    pub(crate) fn native_responses(names: StreamNames) -> Self {
        let writer = NativeResponsesWriter::new(names);
        Self::NativeResponses(NativeResponsesStream(Box::new(writer)))
    }

    /// What its client speaks.
    #[must_use]
    pub const fn dialect(&self) -> ClientDialect {
        match self {
            Self::Chat(_) => ClientDialect::Chat,
            Self::Messages(_) | Self::NativeMessages(_) => ClientDialect::Messages,
            Self::Responses(_) | Self::NativeResponses(_) => ClientDialect::Responses,
        }
    }

    /// Whether this chunk is written with the bill so far.
    #[must_use]
    pub fn bills(&self, chunk: &Chunk) -> bool {
        match self {
            Self::Chat(writer) => writer.include_usage && chunk.usage().is_some(),
            Self::Messages(_) | Self::Responses(_) => false,
            Self::NativeMessages(_) | Self::NativeResponses(_) => chunk.finishes(),
        }
    }

    /// Writes a chunk; `bill` is there where [`bills`](Self::bills) says so.
    pub fn chunk(&mut self, chunk: &Chunk, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
        match self {
            Self::Chat(writer) => writer.chunk(chunk, bill, out),
            Self::Messages(stream) => stream.0.chunk(chunk, out),
            Self::Responses(stream) => stream.0.chunk(chunk, out),
            Self::NativeMessages(stream) => stream.0.chunk(chunk, bill, out),
            Self::NativeResponses(stream) => stream.0.chunk(chunk, bill, out),
        }
    }

    /// Writes what is paid of a chunk: each of its texts cut to `keep` bytes.
    pub fn cut(&mut self, chunk: &Chunk, keep: &[usize], out: &mut BytesMut) {
        match self {
            Self::Chat(_) => write_event(out, &chunk.cut(keep)),
            Self::Messages(MessagesStream(writer)) => {
                if let Some(cut) = cut_short(chunk, keep) {
                    writer.chunk(&cut, out);
                }
            }
            Self::Responses(ResponsesStream(writer)) => {
                if let Some(cut) = cut_short(chunk, keep) {
                    writer.chunk(&cut, out);
                }
            }
            Self::NativeMessages(stream) => stream.0.cut(chunk, keep, out),
            Self::NativeResponses(stream) => stream.0.cut(chunk, keep, out),
        }
    }

    /// Writes the end of a stream that came whole. `template` is what its chunks have in common.
    pub fn complete(
        &mut self,
        bill: Option<&Bill<'_>>,
        template: Option<&ChunkTemplate>,
        out: &mut BytesMut,
    ) {
        match self {
            Self::Chat(writer) => {
                writer.usage(bill, template, out);
                out.put_slice(ClientDialect::Chat.stream_end());
            }
            Self::Messages(stream) => stream.0.complete(bill, out),
            Self::Responses(stream) => stream.0.complete(bill, out),
            Self::NativeMessages(stream) => stream.0.complete(bill, out),
            // Its last event says all.
            Self::NativeResponses(_) => {}
        }
    }

    /// The response as its client got it, once it has come whole and where it is kept.
    pub fn kept(&mut self) -> Option<String> {
        match self {
            Self::Chat(_) | Self::Messages(_) | Self::NativeMessages(_) => None,
            Self::Responses(stream) => stream.0.kept(),
            Self::NativeResponses(stream) => stream.0.kept(),
        }
    }

    /// Writes the end of a stream that failed (CONTRACT 3): what is charged, then the error.
    pub fn fail<M: Serialize>(
        &mut self,
        error: &ErrorBody<'_, M>,
        status: u16,
        bill: Option<&Bill<'_>>,
        template: Option<&ChunkTemplate>,
        out: &mut BytesMut,
    ) {
        match self {
            Self::Chat(writer) => {
                writer.usage(bill, template, out);
                let usage = bill.map(usage_json);
                let event = error.to_stream_json(status, usage.as_deref());
                write_event(out, &event.unwrap_or_default());
                out.put_slice(ClientDialect::Chat.stream_end());
            }
            Self::Messages(stream) => stream.0.fail(error, status, bill, out),
            Self::Responses(stream) => stream.0.fail(error, status, bill, out),
            Self::NativeMessages(stream) => stream.0.fail(error, status, bill, out),
            Self::NativeResponses(stream) => stream.0.fail(error, status, bill, out),
        }
    }
}

/// A chunk that was cut is a chunk: of the same shape, with less in it.
fn cut_short(chunk: &Chunk, keep: &[usize]) -> Option<Chunk> {
    Chunk::read(chunk.cut(keep).into()).ok()
}

/// Writes the chunks of OpenAI's chat: the provider's own.
#[derive(Debug)]
pub struct ChatWriter {
    names: StreamNames,
    include_usage: bool,
    usage_sent: bool,
}

impl ChatWriter {
    fn chunk(&mut self, chunk: &Chunk, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
        match bill {
            Some(bill) => {
                self.usage_sent |= chunk.is_without_choices();
                write_event(out, &chunk.with_bill(bill));
            }
            None if chunk.usage().is_none() => write_event(out, chunk.json()),
            None => {
                if let Some(bytes) = chunk.without_usage() {
                    write_event(out, &bytes);
                }
            }
        }
    }

    /// The chunk with the usage, for whoever asked and has not seen it.
    fn usage(
        &mut self,
        bill: Option<&Bill<'_>>,
        template: Option<&ChunkTemplate>,
        out: &mut BytesMut,
    ) {
        let Some(bill) = bill.filter(|_| self.include_usage && !self.usage_sent) else {
            return;
        };
        self.usage_sent = true;
        let Origin { created, id, model } = &self.names.origin;
        let own = || ChunkTemplate::new(id, *created, model);
        let chunk = template.map_or_else(
            || own().usage_chunk(bill),
            |template| template.usage_chunk(bill),
        );
        write_event(out, &chunk);
    }
}
