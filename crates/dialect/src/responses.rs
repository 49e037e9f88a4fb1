//! OpenAI's Responses as clients speak it: their requests as chat requests, answers and streams as responses.
//!
//! Source of the shapes: OpenAI's API reference, "Create a model response" and "Streaming events".

mod compose;
mod request;
mod tools;
mod writer;

pub use request::ResponsesRequest;
pub(crate) use writer::{ResponsesWriter, answer};
