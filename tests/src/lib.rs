//! The whole program over HTTP: what the test files share.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is test code: it says what failed by panicking"
)]

mod answer;
mod books;
mod catalogue;
mod customer;
mod eventually;
mod gateway;
mod oracle;
mod program;
mod remote;

pub use answer::{Events, Plain, Streaming};
pub use books::{Books, Place};
pub use catalogue::{
    ADMIN_KEY, CANARY_PROVIDER_KEY, KEY_VARIABLE, TOP_UP_URL, provider_files, provider_texts,
    variable,
};
pub use customer::{Balance, Customer};
pub use eventually::{LIMIT, eventually, in_time, unchanging};
pub use gateway::Gateway;
pub use oracle::{
    PROMPT, PROMPT_TOKENS, chat, count_tokens, credits, streamed, tokens_cost, usage,
};
pub use program::Program;
pub use remote::{Remote, metric};
