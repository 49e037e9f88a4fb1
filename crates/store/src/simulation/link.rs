//! A simulated connection: statements of the real SQL, each with the fate that the weather gives it.

use std::time::Duration;

use sqlx::{Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{Fate, Fault, Node, Step, gone, lock, run};
use crate::{
    StoreError,
    link::{Record, STATEMENT_MAX},
    sql::Sql,
};

/// One connection, in a transaction or for reading.
#[derive(Debug)]
pub(crate) struct SimulatedLink {
    node: Node,
    /// The transaction that is open.
    session: Option<u64>,
    /// The connection broke, or a statement was given up on.
    broken: bool,
    /// A commit is under way.
    committing: bool,
    /// Changes were announced.
    changed: bool,
}

impl SimulatedLink {
    pub(super) const fn new(node: Node) -> Self {
        Self {
            node,
            session: None,
            broken: false,
            committing: false,
            changed: false,
        }
    }

    /// Begins a transaction on a new connection.
    pub(crate) async fn begin(node: &Node) -> Result<Self, StoreError> {
        let mut link = node.connect().await?;
        let fate = node.fate(Step::Begin);
        let begun = async {
            link.reach(fate).await?;
            link.session = Some(node.database().0.begin().await?);
            link.hear(fate).await
        };
        let begun = tokio::time::timeout(STATEMENT_MAX, begun).await;
        match begun {
            Ok(Ok(())) => Ok(link),
            Ok(Err(error)) => {
                link.broken = true;
                Err(StoreError::Database(error))
            }
            Err(_) => {
                link.broken = true;
                Err(StoreError::TimedOut)
            }
        }
    }

    pub(crate) fn announce(&mut self) {
        self.changed = true;
    }

    pub(crate) async fn all<T: Record>(&mut self, sql: Sql) -> Result<Vec<T>, sqlx::Error> {
        self.step(|connection, now| run(sql.at(now).sqlite_as().fetch_all(connection)))
            .await
    }

    pub(crate) async fn maybe<T: Record>(&mut self, sql: Sql) -> Result<Option<T>, sqlx::Error> {
        self.step(|connection, now| run(sql.at(now).sqlite_as().fetch_optional(connection)))
            .await
    }

    /// A statement that does not ask for the time.
    pub(crate) async fn execute(
        &mut self,
        statement: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<(), sqlx::Error> {
        self.step(|connection, _| run(statement.execute(connection)))
            .await
            .map(|_| ())
    }

    pub(crate) async fn run(&mut self, sql: Sql) -> Result<u64, sqlx::Error> {
        self.step(|connection, now| run(sql.at(now).sqlite().execute(connection)))
            .await
            .map(|done| done.rows_affected())
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let Some(session) = self.session else {
            return Ok(());
        };
        if self.broken {
            return Err(gone());
        }
        let fate = self.node.fate(Step::Commit);
        self.committing = true;
        let sent = self.reach(fate).await;
        self.committing = false;
        if let Err(error) = sent {
            self.broken = true;
            return Err(error);
        }
        let server = std::sync::Arc::clone(&self.node.database().0);
        let changed = self.changed;
        if let Some(Fault::Late(by)) = fate.fault {
            // The client hears that its connection is gone; the server has the commit already.
            self.session = None;
            server.abandon(session, by.saturating_mul(2));
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                // Too late where the server ended the transaction meanwhile.
                let _ = server.commit(session, changed);
            });
            return Err(gone());
        }
        self.session = None;
        server.commit(session, changed)?;
        self.hear(fate).await
    }

    /// One statement: on its way, done at once, and its answer on its way back.
    async fn step<T>(
        &mut self,
        work: impl FnOnce(&mut SqliteConnection, i64) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        if self.broken {
            return Err(gone());
        }
        let fate = self.node.fate(Step::Statement);
        // Whoever gives up in the middle leaves a connection that nobody can use.
        self.broken = true;
        self.reach(fate).await?;
        let database = self.node.database().clone();
        let server = &database.0;
        let now = server.weather.now_us();
        let done = match self.session {
            Some(session) if server.hears_from(session) => work(&mut lock(&server.writer), now),
            Some(_) => Err(gone()),
            None => work(&mut lock(&server.reader), now),
        };
        self.hear(fate).await?;
        // A statement that the database refused ends its transaction, not its connection.
        self.broken = false;
        done
    }

    async fn reach(&self, fate: Fate) -> Result<(), sqlx::Error> {
        pause(fate.before).await;
        if self.node.is_dead() || fate.fault == Some(Fault::Silence) {
            return std::future::pending().await;
        }
        match fate.fault {
            Some(Fault::Refused) => Err(gone()),
            Some(Fault::AnswerLost | Fault::Late(_) | Fault::Silence) | None => Ok(()),
        }
    }

    async fn hear(&self, fate: Fate) -> Result<(), sqlx::Error> {
        pause(fate.after).await;
        match fate.fault {
            Some(Fault::AnswerLost) => Err(gone()),
            Some(Fault::Refused | Fault::Late(_) | Fault::Silence) | None => Ok(()),
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

impl Drop for SimulatedLink {
    fn drop(&mut self) {
        let Some(session) = self.session else {
            return;
        };
        let server = &self.node.database().0;
        let weather = &server.weather;
        let id = self.node.id();
        if self.committing && weather.commits_anyway(id) {
            // The commit was on its way when its client went.
            let _ = server.commit(session, self.changed);
        } else if self.broken || self.committing || self.node.is_dead() {
            server.abandon(session, weather.lingers(id));
        } else {
            server.roll_back(session);
        }
    }
}
