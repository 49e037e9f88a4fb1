//! A scripted provider over real HTTP: words with usage, pauses, cuts, garbage, wrong usage; also the demo provider of a first run.
//!
//! Any model is answered sensibly, the models of [`fault_models`] wrongly, and a model with a
//! [`Script`] as the script says:
//!
//! ```no_run
//! # use mock_provider::{Cut, MockProvider, Script};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = MockProvider::start("127.0.0.1:0".parse()?).await?;
//! provider.script("m", Script::new().words("All is well").gate("go").cut(Cut::Reset));
//! // … a client asks provider.url() for a chat with the model "m" …
//! provider.wait_for(|stats| stats.at_gates == 1).await?;
//! provider.open("go");
//! provider.wait_for(|stats| stats.streams_cut == 1).await?;
//! # Ok(()) }
//! ```

mod answer;
mod chunk;
mod embeddings;
mod faults;
mod gates;
mod judged;
mod media;
mod messages;
mod objects;
mod plain;
mod reply;
mod request;
mod responses;
mod routes;
mod script;
mod server;
mod stats;
mod wire;
mod words;

pub use faults::fault_models;
pub use script::{Cut, Script};
pub use server::{MockProvider, SeenRequest};
pub use stats::{Stats, WaitTimeout};
