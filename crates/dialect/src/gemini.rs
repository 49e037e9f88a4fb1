//! Google's dialect: `generateContent` of the Gemini API and of Vertex AI, for clients that speak OpenAI's chat API.
//!
//! Source of the shapes: Google's API reference, "Generating content", its guides "Thinking", "Thought
//! signatures", "Function calling" and "OpenAI compatibility", and the types of its Python SDK
//! `google-genai` 1.50.

pub(crate) mod answer;
mod arguments;
mod call;
mod contents;
pub(crate) mod encode;
mod error;
mod google;
mod logprobs;
mod parameters;
mod part;
mod raw;
mod reason;
mod report;
mod stream;
pub(crate) mod thinking;
mod tools;

pub(crate) use error::cause;
pub use stream::GeminiDecoder;
