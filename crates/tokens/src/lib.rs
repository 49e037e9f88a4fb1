//! What a request consumed: usage in disjoint buckets, and counting text with a model's tokenizer in bounded time.
//!
//! Nothing here reads a clock, a file or the network. A [`Tokenizer`] counts whole texts, a
//! [`StreamCounter`] counts a text that is still growing, [`PromptRules`] count a prompt that is
//! given as [`Part`]s.

mod beginning;
mod encoding;
mod error;
mod given;
mod image;
mod inside;
mod learn;
mod models;
mod picture;
mod prompt;
mod sound;
mod stream;
mod tokenizer;
mod tool;
mod usage;

pub use encoding::Encoding;
pub use error::TokensError;
pub use given::{Given, Vocabulary};
pub use image::{Detail, ImageRule};
pub use learn::{BATCH_LESSONS_MAX, Batch, Estimate, LESSON_TOKENS_MIN, Lesson, Side};
pub use picture::data_url_size;
pub use prompt::{
    AUDIO_TOKENS_PER_SECOND, CLAUDE_TOOL_TOKENS, GEMINI_AUDIO_TOKENS_PER_SECOND, Measure, Part,
    PromptRules,
};
pub use sound::sound_millis;
pub use stream::{PENDING_BYTES_MAX, StreamCounter};
pub use tokenizer::{Factor, OFF_THREAD_BYTES_MIN, Tokenizer};
pub use usage::{Bucket, Usage, UsageSource};
