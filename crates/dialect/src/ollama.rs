//! Ollama's own dialect: `/api/chat`, for clients that speak OpenAI's chat API.
//!
//! Source of the shapes: Ollama's API reference, "Generate a chat message", "Errors" and its OpenAPI
//! document.

pub(crate) mod answer;
pub(crate) mod encode;
mod messages;
mod stream;

pub use stream::OllamaDecoder;
