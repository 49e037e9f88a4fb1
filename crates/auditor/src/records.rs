//! What clients and operators wrote down of what they received, one JSON object a line.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::AuditorError;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A request and what came of it.
    Answer(Box<Answer>),
    /// Credits that the operator booked.
    Credit(Credit),
}

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Whole.
    Finished,
    /// The client hung up.
    HungUp,
    /// The gateway said that the provider failed, before or after output began.
    Failed,
    /// The gateway said in the middle that the credits are used up.
    Exhausted,
    /// The gateway said in the middle that it stops.
    Stopped,
    /// An answer without any output: 4xx, 503.
    Refused,
    /// The connection broke: nobody said anything.
    Lost,
}

/// What a provider was told to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Prompt tokens.
    pub prompt: u64,
    /// Output tokens.
    pub completion: u64,
}

/// The usage that the client was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Prompt tokens.
    pub prompt: u64,
    /// Output tokens.
    pub completion: u64,
    /// Decimal text.
    pub cost: String,
}

/// A request and what its client received. Ids are 32 hexadecimal digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The request; unknown where no head arrived.
    pub request_id: Option<String>,
    /// Who pays.
    pub account_id: String,
    /// The key.
    pub key_id: String,
    /// The process that was asked.
    pub replica: String,
    /// What was asked for.
    pub model: String,
    /// 0 where no head arrived.
    pub status: u16,
    /// The error's code, where there was one.
    pub code: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The prompt by the client's own tokenizer.
    pub prompt_tokens: u64,
    /// What was received, by the client's own tokenizer.
    pub output_tokens: u64,
    /// What the provider could have sent at most.
    pub output_tokens_max: u64,
    /// What was received so long before the end that a checkpoint must have it.
    pub output_tokens_certain: u64,
    /// What the provider was told to report, where it came to that.
    pub reported: Option<Reported>,
    /// What the client was shown.
    pub shown: Option<Shown>,
    /// True where the gateway had told the client that it was booked.
    pub acknowledged: bool,
    /// True where the process was killed so soon after it that its settlement may be lost.
    pub at_risk: bool,
}

/// Credits that the operator booked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credit {
    /// Whose.
    pub account_id: String,
    /// The operator's own, unlike any other; or the entry's id.
    pub reference: String,
    /// Decimal text.
    pub amount: String,
    /// True where the gateway answered that it is booked; else it may be or not.
    pub acknowledged: bool,
}

/// Reads records.
///
/// # Errors
/// The file cannot be read, or a line is no record.
pub fn read_records(path: &Path) -> Result<Vec<Record>, AuditorError> {
    let text = fs::read_to_string(path)?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).map_err(AuditorError::Record))
        .collect()
}
