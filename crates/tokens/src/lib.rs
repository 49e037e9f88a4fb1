//! What a request consumed: usage in disjoint buckets, and counting text with a model's tokenizer in bounded time.

mod usage;

pub use usage::{Usage, UsageSource};
