//! What other replicas must hear of: written with the change itself, read by every replica's watcher.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use billing::{AccountId, BudgetId, KeyId, ReplicaId};
use uuid::Uuid;

use crate::{Store, StoreError, clock, link::Link, postgres::CHANNEL, sql::sql};

/// Something that replicas keep in memory is no longer true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A key was changed, rotated or revoked.
    Key(KeyId),
    /// An account was changed or got credits.
    Account(AccountId),
    /// A replica needs what others have leased of this budget and do not use.
    Recall(BudgetId),
}

/// A change as it was read.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct ChangeRecord {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) id: Uuid,
    /// Of the budget of a key.
    pub(crate) account_id: Option<Uuid>,
    pub(crate) source: Option<Uuid>,
}

/// Old changes are deleted; a watcher that slept longer forgets everything it knows.
pub(crate) const CHANGES_KEPT: Duration = Duration::from_secs(600);
/// So many marks at most are kept of the time that matters.
const MARKS_MAX: u32 = 32;

/// The highest number of a change at several moments, by this process's monotonic clock.
///
/// Changes are numbered before they are committed and may appear out of order, so a number says
/// nothing about those below it until a transaction's longest life has passed.
#[derive(Debug)]
pub(crate) struct Marks {
    age: Duration,
    marks: VecDeque<(Instant, i64)>,
    /// A number that was the highest at least `age` ago.
    settled: i64,
}

impl Marks {
    /// Marks that settle after `age`.
    pub(crate) const fn new(age: Duration) -> Self {
        Self {
            age,
            marks: VecDeque::new(),
            settled: 0,
        }
    }

    /// Notes that `seq` was the highest number at a look that was over at `at`.
    pub(crate) fn note(&mut self, at: Instant, seq: i64) {
        let last = self.marks.back().map(|(at, _)| *at);
        if last.is_none_or(|last| at.saturating_duration_since(last) >= self.age / MARKS_MAX) {
            self.marks.push_back((at, seq));
        }
    }

    /// The highest number that was the highest at least the age ago; zero while there is none.
    pub(crate) fn settled(&mut self, now: Instant) -> i64 {
        while let Some((at, seq)) = self.marks.front().copied()
            && now.saturating_duration_since(at) >= self.age
        {
            self.settled = self.settled.max(seq);
            self.marks.pop_front();
        }
        self.settled
    }
}

/// Deletes the changes that everybody has had the time to see.
pub(crate) async fn forget_old(store: &Store, marks: &mut Marks) -> Result<(), StoreError> {
    let settled = marks.settled(clock::now());
    let highest: Option<(i64,)> = {
        let mut reader = store.read().await?;
        let select = sql("SELECT seq FROM changes ORDER BY seq DESC LIMIT 1");
        reader.link().maybe(select).await?
    };
    if let Some((highest,)) = highest {
        marks.note(clock::now(), highest);
    }
    let mut tx = store.begin().await?;
    let delete = sql("DELETE FROM changes WHERE seq <= ?");
    tx.link().run(delete.int(settled)).await?;
    tx.commit().await
}

/// Announces `change`, as the last thing before the commit: readers look back only so far.
pub(crate) async fn announce(
    link: &mut Link<'_>,
    change: Change,
    source: Option<ReplicaId>,
) -> Result<(), StoreError> {
    let (kind, id, account) = match change {
        Change::Key(id) => ("key", id.uuid(), None),
        Change::Account(id) => ("account", id.uuid(), None),
        Change::Recall(BudgetId::Account(id)) => ("recall_account", id.uuid(), None),
        Change::Recall(BudgetId::Key(account, id)) => ("recall_key", id.uuid(), Some(account)),
    };
    let insert =
        sql("INSERT INTO changes (kind, id, account_id, source, at) SELECT ?, ?, ?, ?, {now}");
    let insert = insert
        .text(kind)
        .uuid(id)
        .opt_uuid(account.map(AccountId::uuid))
        .opt_uuid(source.map(ReplicaId::uuid));
    link.run(insert).await?;
    match link {
        Link::Sqlite(_) => {}
        #[cfg(feature = "simulation")]
        Link::Simulated(link) => link.announce(),
        Link::Postgres(_) => {
            let notify = sql("SELECT pg_notify(?, '')").text(CHANNEL);
            link.run(notify).await?;
        }
    }
    Ok(())
}

impl ChangeRecord {
    pub(crate) fn change(&self) -> Option<Change> {
        match self.kind.as_str() {
            "key" => Some(Change::Key(KeyId::from_uuid(self.id))),
            "account" => Some(Change::Account(AccountId::from_uuid(self.id))),
            "recall_account" => Some(Change::Recall(BudgetId::Account(AccountId::from_uuid(
                self.id,
            )))),
            "recall_key" => Some(Change::Recall(BudgetId::Key(
                AccountId::from_uuid(self.account_id?),
                KeyId::from_uuid(self.id),
            ))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_settles_with_its_age() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut marks = Marks::new(Duration::from_secs(20));
        assert_eq!(marks.settled(at(0)), 0);
        marks.note(at(0), 7);
        marks.note(at(10), 9);
        assert_eq!(marks.settled(at(19)), 0);
        assert_eq!(marks.settled(at(20)), 7);
        assert_eq!(marks.settled(at(29)), 7);
        assert_eq!(marks.settled(at(300)), 9);
    }

    #[test]
    fn marks_are_few_however_often_one_looks() {
        let start = Instant::now();
        let mut marks = Marks::new(Duration::from_secs(20));
        for ms in 0..60_000 {
            let now = start + Duration::from_millis(ms);
            marks.note(now, i64::try_from(ms).unwrap());
            let settled = marks.settled(now);
            assert!(settled <= i64::try_from(ms).unwrap() - 20_000 || settled == 0);
        }
        assert!(marks.marks.len() <= 33, "{}", marks.marks.len());
        assert!(marks.settled > 38_000);
    }
}
