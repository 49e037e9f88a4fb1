//! A request's permit to settle, and the local journal that knows what it owes before the world sees it.

use std::{fmt, sync::Arc};

use tokio::sync::mpsc::OwnedPermit;

use crate::{ReplicaId, RequestFacts, RequestId, Settlement};

/// The local journal could not write a request down, so it must not go upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the local journal cannot be written")]
pub struct NotRecorded;

/// A record on this machine that outlives the process. Each method has written when it returns,
/// or has noted that it cannot write; none of them waits for a database.
pub trait LocalJournal: fmt::Debug + Send + Sync {
    /// The request is about to go upstream.
    ///
    /// # Errors
    /// [`NotRecorded`]: the request must be refused.
    fn started(&self, facts: &RequestFacts, lease: ReplicaId) -> Result<(), NotRecorded>;

    /// What the request owes once what is about to be delivered is with the client: the
    /// settlement that it would get if the gateway were lost right after.
    fn progressed(&self, so_far: &Settlement);

    /// The request has ended, and its settlement is about to be sent.
    fn settled(&self, settlement: &Settlement);

    /// The attempt failed before any output: nothing is owed for it.
    fn retracted(&self, request: RequestId);
}

/// A request's place in the journal's queue, taken before anything is promised, so that its
/// settlement can be sent from `drop`. Where there is a local journal, that is told first.
#[derive(Debug)]
pub struct Permit {
    place: OwnedPermit<Settlement>,
    local: Option<Arc<dyn LocalJournal>>,
}

impl Permit {
    /// A permit for this place in the queue.
    #[must_use]
    pub fn new(place: OwnedPermit<Settlement>, local: Option<Arc<dyn LocalJournal>>) -> Self {
        Self { place, local }
    }

    /// The local journal, where there is one.
    #[must_use]
    pub fn local(&self) -> Option<&dyn LocalJournal> {
        self.local.as_deref()
    }

    /// Uses the place: writes the settlement down where that was configured, and sends it.
    pub fn send(self, settlement: Settlement) {
        self.write_down(&settlement).send(settlement);
    }

    /// Writes the settlement down where that was configured, and returns the place that it is to be
    /// sent through.
    pub(crate) fn write_down(self, settlement: &Settlement) -> OwnedPermit<Settlement> {
        if let Some(local) = &self.local {
            local.settled(settlement);
        }
        self.place
    }
}

impl From<OwnedPermit<Settlement>> for Permit {
    fn from(place: OwnedPermit<Settlement>) -> Self {
        Self::new(place, None)
    }
}
