//! What clients wrote down, and what the auditor says to it, in a process of its own.

use std::{
    fs,
    io::Write as _,
    process::Command,
    sync::{Mutex, PoisonError},
};

use auditor::{Record, Report};
use tempfile::NamedTempFile;

use crate::program::built;

/// Everything that clients and the operator wrote down.
#[derive(Debug, Default)]
pub struct Records(Mutex<Vec<Record>>);

impl Records {
    /// Writes something down.
    pub fn add(&self, record: Record) {
        self.lock().push(record);
    }

    /// How much there is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// A copy, to be changed.
    #[must_use]
    pub fn all(&self) -> Vec<Record> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The auditor's report on a database and these records, with flags of its command line.
///
/// # Panics
/// It could not judge.
pub async fn verdict(database_url: &str, records: &[Record], flags: &[&str]) -> Report {
    let mut file = NamedTempFile::new().unwrap();
    for record in records {
        writeln!(file, "{}", serde_json::to_string(record).unwrap()).unwrap();
    }
    file.flush().unwrap();
    let mut command = Command::new(built("auditor"));
    command
        .args(["--database-url", database_url, "--records"])
        .arg(file.path())
        .args(flags);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    assert_eq!(output.status.success(), report.balanced);
    if !report.balanced {
        // Somebody will want to look at what did not fit.
        if let Ok(path) = std::env::var("TOLLWAY_KEEP_RECORDS") {
            fs::copy(file.path(), path).unwrap();
        }
    }
    report
}
