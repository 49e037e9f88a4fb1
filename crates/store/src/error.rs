//! Why the store refused or could not do something.

use billing::{AccountId, Credits, KeyId, RequestId, rules::RuleError};

use crate::Month;

/// Why a verb of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database URL is not one of ours.
    #[error("the database URL is sqlite://PATH or postgres://USER@HOST/NAME: {0}")]
    Url(String),
    /// Another process owns the SQLite file.
    #[error("{path} is in use by another process; one tollway owns a SQLite file at a time")]
    InUse {
        /// The lock file.
        path: String,
    },
    /// Another process owns the folder of the local journal.
    #[error(
        "the local journal in {folder} is in use by another process; every gateway needs a folder of its own"
    )]
    LocalJournalInUse {
        /// The folder.
        folder: String,
    },
    /// The local journal cannot be used.
    #[error("the local journal, {path}: {problem}")]
    LocalJournal {
        /// The folder, or the file in it.
        path: String,
        /// What is wrong and what would mend it.
        problem: String,
    },
    /// The files of the database cannot be used.
    #[error("the database's folder: {0}")]
    File(#[from] std::io::Error),
    /// The tables could not be brought up to date.
    #[error("the migrations did not run: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database is not set up: it was opened for reading and has no tables.
    #[error("there is no ledger of this version in this database; a gateway that starts makes it")]
    Empty,
    /// The tables are those of another version of this program.
    #[error(
        "the tables of this database are of version {found}, and this program's are of version {wanted}: use the program that its gateways run, or start a gateway of this one where it is newer"
    )]
    OtherVersion {
        /// The number of the last migration that ran.
        found: i64,
        /// The number of this program's last one.
        wanted: i64,
    },
    /// No such account.
    #[error("no account {0}")]
    UnknownAccount(AccountId),
    /// No such key.
    #[error("no key {0}")]
    UnknownKey(KeyId),
    /// A field that the caller can mend.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's name in the admin API.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// The idempotency key was used before with another body.
    #[error("this idempotency key was used before with another body")]
    IdempotencyConflict,
    /// A negative adjustment or refund above what is there.
    #[error("the balance has only {available} to take from")]
    BelowZero {
        /// What could be taken.
        available: Credits,
    },
    /// The overdraft cannot be lowered below what is already used of it.
    #[error("the account has used more of its overdraft than that; available is {available}")]
    OverdraftInUse {
        /// The account's available credit, below zero.
        available: Credits,
    },
    /// The month's charges cannot be closed, or not now.
    #[error("{month} cannot be closed: {why}")]
    NotClosable {
        /// Which month.
        month: Month,
        /// What is in the way and what would help.
        why: String,
    },
    /// The file is not what the month was exported to.
    #[error("the export file: {0}")]
    Export(String),
    /// A settlement that was put aside cannot be resolved so.
    #[error("{request}: {why}")]
    NotResolvable {
        /// The request that it ends.
        request: RequestId,
        /// What is in the way and what would help.
        why: String,
    },
    /// A rule of the ledger refused: books that do not add up, or amounts that do not fit.
    #[error("the ledger's rules refused: {0}")]
    Rule(#[from] RuleError),
    /// A stored row is not understood: the database was written by something else.
    #[error("a stored row is not understood: {0}")]
    Corrupt(String),
    /// The database did not do it, for now or for good.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database did not answer in time.
    #[error("the database did not answer in time")]
    TimedOut,
}

impl StoreError {
    /// True when the same call may succeed later without any change: the database is away,
    /// overloaded or restarting. The HTTP answer is 503.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Database(error) => transient(error),
            Self::Url(_)
            | Self::InUse { .. }
            | Self::LocalJournalInUse { .. }
            | Self::LocalJournal { .. }
            | Self::File(_)
            | Self::Migrate(_)
            | Self::Empty
            | Self::OtherVersion { .. }
            | Self::UnknownAccount(_)
            | Self::UnknownKey(_)
            | Self::Invalid { .. }
            | Self::IdempotencyConflict
            | Self::BelowZero { .. }
            | Self::OverdraftInUse { .. }
            | Self::NotClosable { .. }
            | Self::Export(_)
            | Self::NotResolvable { .. }
            | Self::Rule(_)
            | Self::Corrupt(_) => false,
        }
    }

    /// True when somebody else held a lock for longer than we wait.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| code == "55P03"))
    }

    /// True when a row that is to be unique is there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// True when the database or the rules looked at the values and will never take them: trying
    /// again is useless. Everything else may pass, a changed password included.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Rule(_) | Self::Corrupt(_) => true,
            Self::Database(sqlx::Error::Database(error)) => {
                // Postgres: data exceptions and integrity violations. SQLite: too big,
                // constraint, mismatch.
                let code = error.code().unwrap_or_default();
                let sqlite = code.parse::<u32>().map_or(0, |n| n & 0xff);
                (code.len() == 5 && (code.starts_with("22") || code.starts_with("23")))
                    || (code.len() < 5 && matches!(sqlite, 18..=20))
            }
            Self::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_)) => true,
            Self::Database(_)
            | Self::TimedOut
            | Self::Url(_)
            | Self::InUse { .. }
            | Self::LocalJournalInUse { .. }
            | Self::LocalJournal { .. }
            | Self::File(_)
            | Self::Migrate(_)
            | Self::Empty
            | Self::OtherVersion { .. }
            | Self::UnknownAccount(_)
            | Self::UnknownKey(_)
            | Self::Invalid { .. }
            | Self::IdempotencyConflict
            | Self::BelowZero { .. }
            | Self::OverdraftInUse { .. }
            | Self::NotClosable { .. }
            | Self::Export(_)
            | Self::NotResolvable { .. } => false,
        }
    }
}

/// Faults of the connection or the server, as against faults of the statement.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlx::Error is non-exhaustive; what is not known to pass is final"
)]
fn transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Postgres: connection, resources, operator intervention, system error, rollback.
            // SQLite: busy, locked, I/O, full and their extended forms (low byte 5, 6, 10, 13).
            let class = code.get(..2).unwrap_or_default();
            let sqlite = code.parse::<u32>().map_or(0, |n| n & 0xff);
            // 25006: a server that only reads, as before its promotion. 25P03: our transaction
            // was idle for too long, so it was undone.
            let postgres = code.len() == 5
                && (matches!(class, "08" | "53" | "57" | "58" | "40")
                    || matches!(&*code, "25006" | "25P03"));
            postgres || (code.len() < 5 && matches!(sqlite, 5 | 6 | 10 | 13))
        }),
        _ => false,
    }
}
