//! Charges sent ahead: while one batch is being committed, those of the next one go to Postgres over a second connection.
//!
//! Inserting charges is most of what a batch costs the server, and it needs nothing that the batch
//! before decides: a settlement that its replica's own lease covers is charged as it says. So its
//! charge is inserted in a transaction of its own that is left open. When the batch before is
//! committed, the writer goes on in that transaction: its number, the locks, the rules. Only where
//! the rules decide otherwise is it undone and done in order. Nothing of it is durable before its
//! commit, and no two batches of a replica are ever committed at once.

use std::time::{Duration, Instant};

use billing::ReplicaId;

use crate::{
    Store, StoreError,
    batch::{self, Item},
    book, booking, clock,
    line::{begin, connected, unless_lost},
    postgres::OwnConnection,
    store::Backend,
};

/// What has waited longer is done in order: the server ends a transaction of the journal that is
/// idle for a second.
const SENT_MAX: Duration = Duration::from_millis(500);

/// What sends charges ahead.
#[derive(Debug)]
pub(crate) struct Ahead {
    store: Store,
    /// The connection that the writer does not use now.
    connection: Option<OwnConnection>,
}

/// Settlements that were taken for the next batch.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) items: Vec<Item>,
    /// Since when, at most, the first of them waited.
    pub(crate) since: Instant,
    /// Where their charges were sent ahead.
    pub(crate) sent: Option<Sent>,
}

/// That the charges lie in an open transaction, and since when.
#[derive(Debug)]
pub(crate) struct Sent(Instant);

impl Ahead {
    /// `None` where it is of no use: SQLite has one writer, and a transaction pooler few sessions.
    pub(crate) fn new(store: &Store) -> Option<Self> {
        match store.backend() {
            Backend::Sqlite(_) => None,
            #[cfg(feature = "simulation")]
            Backend::Simulated(_) => None,
            Backend::Postgres(backend) => backend.has_sessions().then(|| Self {
                store: store.clone(),
                connection: None,
            }),
        }
    }

    /// Sends the charges of these settlements. `None` where that was not possible, which the
    /// writer finds out about in its own way.
    pub(crate) async fn send(&mut self, items: &[Item], replica: ReplicaId) -> Option<Sent> {
        let sent = Sent(clock::now());
        match self.try_send(items, replica).await {
            Ok(true) => return Some(sent),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "charges were not sent ahead");
                // Its rows may be in the way of those that the writer inserts.
                self.connection = None;
            }
        }
        None
    }

    async fn try_send(&mut self, items: &[Item], replica: ReplicaId) -> Result<bool, StoreError> {
        let Some(charges) = batch::expected(items, replica) else {
            return Ok(false);
        };
        let session = connected(&self.store, &mut self.connection).await?;
        let connection = &mut self.connection;
        let sending = async {
            let mut tx = begin(&self.store, connection).await?;
            let mut link = tx.link();
            let now = book::now(&mut link).await?;
            booking::insert_charges(&mut link, &charges, now.0).await
        };
        unless_lost(&self.store, session, sending).await?;
        Ok(true)
    }

    /// Gives the writer the connection with the open transaction for its own. False where it is
    /// too old, and gone.
    pub(crate) fn hand_over(&mut self, sent: Sent, to: &mut Option<OwnConnection>) -> bool {
        if clock::now().saturating_duration_since(sent.0) > SENT_MAX {
            self.connection = None;
            return false;
        }
        std::mem::swap(&mut self.connection, to);
        true
    }
}
