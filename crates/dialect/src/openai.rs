//! OpenAI's dialect: the client's own, and that of every provider that followed it.

mod alike;
pub(crate) mod answer;
pub(crate) mod chunk;
mod cut;
pub(crate) mod encode;
mod report;
pub(crate) mod stream;

pub use answer::Answer;
pub use chunk::TextKind;
pub(crate) use chunk::report_text;
pub use encode::{Edit, WireRequest};
pub(crate) use stream::ChunkUsage;
pub use stream::{Chunk, Delta, Ending, OpenAiDecoder, TextRef};
