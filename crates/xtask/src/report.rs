//! What a chore has to say: lines for a person, and whether all was well.

use std::{io, path::PathBuf};

use crate::test::Tally;

/// The outcome of a chore.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Lines to print, in order.
    pub(crate) lines: Vec<String>,
    /// False when the chore found something that has to be mended.
    pub(crate) all_well: bool,
}

impl Report {
    /// A report that starts out well.
    pub(crate) fn new() -> Self {
        Self {
            lines: Vec::new(),
            all_well: true,
        }
    }

    /// Adds a line.
    pub(crate) fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds how many cases passed, and the names of those that did not.
    pub(crate) fn count(&mut self, tally: &Tally) {
        for name in &tally.failures {
            self.blame(format!("      {name}"));
        }
        let line = format!("{} passed, {} failed", tally.passed, tally.failed);
        if tally.failed == 0 {
            self.say(line);
        } else {
            self.blame(line);
        }
    }

    /// Adds a line about something to mend.
    pub(crate) fn blame(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
        self.all_well = false;
    }
}

/// Why a chore could not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No directory above this one holds the workspace.
    #[error("no Cargo.toml with a [workspace] in {0} or above it")]
    NoWorkspace(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started or failed.
    #[error("{program}: {what}")]
    Program {
        /// The program with its arguments.
        program: String,
        /// What went wrong.
        what: String,
    },
    /// A file does not hold what it should.
    #[error("{what}: {why}")]
    Content {
        /// The file or the place in it.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl From<price_tables::TableError> for Failure {
    fn from(error: price_tables::TableError) -> Self {
        Self::content(error.place, error.problem)
    }
}

impl Failure {
    /// A [`Failure::File`] about `path`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// A [`Failure::Content`] about `what`.
    pub(crate) fn content(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Content {
            what: what.into(),
            why: why.to_string(),
        }
    }
}
