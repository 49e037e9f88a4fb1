//! What errors of the other crates are to a client.

use billing::{NotRecorded, PriceError};
use dialect::RequestError;
use store::{AuthError, NoPermit, StoreError};

use super::ApiError;
use crate::upstream::Failure;

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        Self::Invalid {
            param: error.param,
            message: error.message,
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

impl From<PriceError> for ApiError {
    fn from(_: PriceError) -> Self {
        Self::Invalid {
            param: None,
            message: "This request asks for more than any account could pay. Lower its limits."
                .into(),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Malformed | AuthError::Unknown => Self::InvalidKey(
                "This API key is not known here. Check it for missing characters, or ask for a new one.",
            ),
            AuthError::Revoked => Self::InvalidKey("This API key was revoked. Ask for a new one."),
            AuthError::Expired => Self::InvalidKey("This API key has expired. Ask for a new one."),
            AuthError::AccountDisabled => Self::NotPermitted(
                "The account of this API key is disabled. Ask the operator.".into(),
            ),
            AuthError::Unavailable => Self::Unaccountable,
        }
    }
}

impl From<NoPermit> for ApiError {
    fn from(why: NoPermit) -> Self {
        match why {
            NoPermit::Busy => Self::Busy,
            NoPermit::NotRecorded => Self::Unaccountable,
        }
    }
}

impl From<NotRecorded> for ApiError {
    fn from(_: NotRecorded) -> Self {
        Self::Unaccountable
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            tracing::warn!(%error, "the store does not answer");
            return Self::Unaccountable;
        }
        match error {
            StoreError::UnknownAccount(id) => {
                Self::NotFound(format!("There is no account {id}.").into())
            }
            StoreError::UnknownKey(id) => Self::NotFound(format!("There is no key {id}.").into()),
            StoreError::Invalid { field, problem } => Self::Invalid {
                param: Some(field.into()),
                message: format!("{field}: {problem}").into(),
            },
            StoreError::IdempotencyConflict => Self::Conflict(
                "This Idempotency-Key was used before with another body. Use a new key for a new call.".into(),
            ),
            StoreError::BelowZero { available } => Self::Conflict(
                format!("This would take the balance below zero; {available} can be taken at most.")
                    .into(),
            ),
            StoreError::OverdraftInUse { available } => Self::Conflict(
                format!("The account has used more of its overdraft than that; its available balance is {available}.")
                    .into(),
            ),
            StoreError::NotClosable { .. }
            | StoreError::Export(_)
            | StoreError::NotResolvable { .. } => Self::Conflict(error.to_string().into()),
            StoreError::Url(_)
            | StoreError::InUse { .. }
            | StoreError::LocalJournalInUse { .. }
            | StoreError::LocalJournal { .. }
            | StoreError::File(_)
            | StoreError::Migrate(_)
            | StoreError::Empty
            | StoreError::OtherVersion { .. }
            | StoreError::Rule(_)
            | StoreError::Corrupt(_)
            | StoreError::Database(_)
            | StoreError::TimedOut => {
                tracing::error!(%error, "the store failed");
                Self::Internal
            }
        }
    }
}
