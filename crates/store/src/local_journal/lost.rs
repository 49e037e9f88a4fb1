//! What earlier lives of the program left in the local journal: what they owed and had not booked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use billing::{ReplicaId, RequestId, Settlement};

use super::{
    problem,
    record::Record,
    segment::{self, Books, Refused},
};
use crate::StoreError;

/// What is to be booked before anything is served.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Requests that had ended.
    pub(crate) settled: Vec<Settlement>,
    /// Requests that were running and had delivered something.
    pub(crate) running: Vec<Settlement>,
    /// How many had gone upstream and delivered nothing: they owe nothing.
    pub(crate) started: usize,
    /// The names under which they had leased credit.
    pub(crate) replicas: BTreeSet<ReplicaId>,
}

/// The segments that were found, to be put away when all they say is booked.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    pub(crate) lost: Lost,
    /// The highest number in use.
    pub(crate) last: u64,
    segments: Vec<PathBuf>,
    damaged: Vec<PathBuf>,
}

/// The last that is known of a request.
#[derive(Debug)]
enum Last {
    Started,
    Running(Settlement),
    Settled(Settlement),
}

/// Takes in records in their order.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    requests: BTreeMap<RequestId, Last>,
    replicas: BTreeSet<ReplicaId>,
}

impl Fold {
    pub(crate) fn take(&mut self, record: Record) {
        match record {
            Record::Replica(replica) => {
                self.replicas.insert(replica);
            }
            Record::Started(request) => {
                self.requests.entry(request).or_insert(Last::Started);
            }
            Record::Progressed(so_far) => {
                let request = so_far.facts.request_id;
                if !matches!(self.requests.get(&request), Some(Last::Settled(_))) {
                    self.requests.insert(request, Last::Running(so_far));
                }
            }
            Record::Settled(settlement) => {
                let request = settlement.facts.request_id;
                self.requests.insert(request, Last::Settled(settlement));
            }
            Record::Committed(requests) => {
                for request in requests {
                    self.requests.remove(&request);
                }
            }
        }
    }

    pub(crate) fn lost(self) -> Lost {
        let mut lost = Lost {
            replicas: self.replicas,
            ..Lost::default()
        };
        for last in self.requests.into_values() {
            match last {
                Last::Started => lost.started += 1,
                Last::Running(so_far) => lost.running.push(so_far),
                Last::Settled(settlement) => lost.settled.push(settlement),
            }
        }
        lost
    }
}

impl Earlier {
    /// Reads every segment of a folder that nobody writes to, one at a time.
    ///
    /// # Errors
    /// [`StoreError::LocalJournal`] for a file that cannot be read, is of another version, or
    /// belongs to another database.
    pub(crate) fn read(folder: &Path, books: &Books) -> Result<Self, StoreError> {
        let segments = segment::list(folder).map_err(|error| problem(folder, &error))?;
        let mut earlier = Self {
            last: segments.last().map_or(0, |(number, _)| *number),
            ..Self::default()
        };
        let mut fold = Fold::default();
        for (number, path) in segments {
            let bytes = fs::read(&path).map_err(|error| problem(&path, &error))?;
            let last = number == earlier.last;
            let scan = segment::scan(&bytes, books, last, |record| fold.take(record));
            let scan = scan.map_err(|refused| match refused {
                Refused::Version(version) => problem(
                    &path,
                    &format!("it is of version {version}, which this program does not know; start the program that wrote it once more"),
                ),
                Refused::OtherBooks => problem(
                    &path,
                    &"it belongs to another database; give every database a folder of its own",
                ),
            })?;
            if let Some(at) = scan.torn {
                tracing::info!(segment = %path.display(), at, "the last record of the local journal was not finished; nobody relied on it");
            }
            for (from, to) in &scan.damage {
                tracing::error!(
                    segment = %path.display(), from, to,
                    "the local journal is damaged here, and what it said there is lost; the file is kept under the ending .damaged"
                );
            }
            if scan.damage.is_empty() {
                earlier.segments.push(path);
            } else {
                earlier.damaged.push(path);
            }
        }
        earlier.lost = fold.lost();
        Ok(earlier)
    }

    /// All of it is booked: deletes what was whole and keeps what was damaged under another name.
    ///
    /// # Errors
    /// [`StoreError::LocalJournal`]. What stays is booked again by the next start, without effect.
    pub(crate) fn put_away(self) -> Result<(), StoreError> {
        for path in self.segments {
            fs::remove_file(&path).map_err(|error| problem(&path, &error))?;
        }
        for path in self.damaged {
            let kept = path.with_extension("damaged");
            fs::rename(&path, kept).map_err(|error| problem(&path, &error))?;
        }
        Ok(())
    }
}
