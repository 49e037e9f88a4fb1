//! Anthropic's dialect: its Messages API, for clients that speak OpenAI's chat API.
//!
//! Source of the shapes: Anthropic's API reference, "Messages" and "Streaming messages", and the
//! types of its Python SDK 2.12.

pub(crate) mod answer;
mod block;
pub(crate) mod encode;
mod error;
pub(crate) mod forward;
mod messages;
pub(crate) mod native;
mod parameters;
mod part;
mod reason;
mod report;
mod stream;
pub(crate) mod thinking;
mod tools;

pub(crate) use encode::Host;
pub(crate) use error::cause;
pub use forward::ForwardDecoder;
pub use stream::AnthropicDecoder;
