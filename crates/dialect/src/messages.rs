//! Anthropic's Messages as clients speak it: their requests as chat requests, answers and streams as messages.
//!
//! Where the provider speaks it too, nothing of this is used but the bill: see `anthropic/native.rs`.
//! Source of the shapes: Anthropic's API reference, "Messages" and "Streaming messages".

mod answer;
mod bill;
mod blocks;
mod calls;
mod compose;
mod reason;
mod request;
mod thought;
mod tools;
mod writer;

pub(crate) use answer::{answer, native_answer};
pub(crate) use calls::{RawCall, RawChunk};
pub(crate) use compose::Writing;
pub use request::{Composed, Composing, MessagesRequest};
pub(crate) use request::{literal, member};
pub(crate) use writer::{MessagesWriter, NativeMessagesWriter};
