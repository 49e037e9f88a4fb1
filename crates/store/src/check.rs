//! Bounds on what the operator writes, and how stored values are read back.

use billing::Credits;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::StoreError;

const NAME_CHARS_MAX: usize = 200;
const TEXT_CHARS_MAX: usize = 500;
const METADATA_BYTES_MAX: usize = 16 * 1024;
const MODELS_MAX: usize = 1000;

pub(crate) fn name(text: &str) -> Result<(), StoreError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !has_control(text);
    if fits && !text.trim().is_empty() {
        return Ok(());
    }
    Err(StoreError::Invalid {
        field: "name",
        problem: "1 to 200 characters, no control characters",
    })
}

pub(crate) fn text(field: &'static str, text: Option<&str>) -> Result<(), StoreError> {
    match text {
        Some(text) if text.chars().count() > TEXT_CHARS_MAX || has_control(text) => {
            Err(StoreError::Invalid {
                field,
                problem: "at most 500 characters, no control characters",
            })
        }
        Some(_) | None => Ok(()),
    }
}

/// The JSON text to store.
pub(crate) fn metadata(metadata: &Map<String, Value>) -> Result<String, StoreError> {
    let text =
        serde_json::to_string(metadata).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    if text.len() > METADATA_BYTES_MAX {
        return Err(StoreError::Invalid {
            field: "metadata",
            problem: "at most 16 KiB as JSON",
        });
    }
    Ok(text)
}

/// The JSON text to store.
pub(crate) fn models(models: &[String]) -> Result<String, StoreError> {
    let fits = models.len() <= MODELS_MAX
        && models
            .iter()
            .all(|m| (1..=NAME_CHARS_MAX).contains(&m.chars().count()) && !has_control(m));
    if !fits {
        return Err(StoreError::Invalid {
            field: "models",
            problem: "at most 1000 names of 1 to 200 characters",
        });
    }
    serde_json::to_string(models).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(crate) fn not_negative(field: &'static str, amount: Credits) -> Result<(), StoreError> {
    if amount.is_negative() {
        return Err(StoreError::Invalid {
            field,
            problem: "must not be negative",
        });
    }
    Ok(())
}

pub(crate) fn positive(field: &'static str, amount: Credits) -> Result<(), StoreError> {
    if !amount.is_positive() {
        return Err(StoreError::Invalid {
            field,
            problem: "must be positive",
        });
    }
    Ok(())
}

pub(crate) fn timestamp(us: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(us).map_err(|_| StoreError::Corrupt(format!("a time {us}")))
}

pub(crate) fn stored_metadata(text: &str) -> Result<Map<String, Value>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("metadata".into()))
}

pub(crate) fn stored_models(text: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt("models".into()))
}

/// A count of tokens or microseconds for an integer column.
pub(crate) fn pinned(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count out of an integer column.
pub(crate) fn count(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}
