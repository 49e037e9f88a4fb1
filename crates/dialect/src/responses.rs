//! OpenAI's Responses as clients speak it: their requests as chat requests, answers and streams as responses.
//!
//! Where the provider has it too, its bytes travel: see `native.rs`, `forward.rs` and `relay.rs`.
//! Source of the shapes: OpenAI's API reference, "Create a model response" and "Streaming events".

mod compose;
pub(crate) mod forward;
mod item;
mod kept;
pub(crate) mod native;
mod relay;
mod report;
mod request;
mod tools;
mod writer;

pub use forward::ForwardResponses;
pub use kept::{FinishedResponse, items_of, listed_input};
pub use native::Searches;
pub(crate) use relay::{NativeResponsesWriter, native_answer};
pub use request::ResponsesRequest;
pub(crate) use writer::{ResponsesWriter, answer};
