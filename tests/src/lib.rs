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
mod dice;
mod eventually;
mod fleet;
mod form;
mod gateway;
mod oracle;
mod program;
mod remote;
mod storm;
mod verdict;

pub use answer::{Events, Plain, Streaming};
pub use books::{Books, Place};
pub use catalogue::{
    ADMIN_KEY, CANARY_PROVIDER_KEY, KEY_VARIABLE, TOP_UP_URL, provider_files, provider_texts,
    variable, variables,
};
pub use customer::{Balance, Customer};
pub use dice::Dice;
pub use eventually::{LIMIT, eventually, in_time, unchanging};
pub use fleet::{Fleet, Target, grants_hold, replica_states};
pub use form::{Form, form};
pub use gateway::Gateway;
pub use oracle::{
    PROMPT, PROMPT_TOKENS, chat, count_tokens, credits, streamed, tokens_cost, usage,
};
pub use program::{Launch, Program, clock_of, tollway};
pub use remote::{Remote, metric};
pub use storm::{
    Account, Calm, Faults, Storm, StormPlan, Taken, Wish, ask, storm_model, storm_provider,
};
pub use verdict::{Records, verdict};
