//! Standing holds: credits set aside in the database itself, for work that outlives every process.
//!
//! A standing hold has leases under its own id, as a replica has: they are gone from what is
//! available, count against the grants that expire soonest, and cover what is settled against them.
//! No replica has them in memory, so that none has to be alive for them.

use std::time::Duration;

use billing::{
    AccountId, BudgetId, Credits, KeyId, ReplicaId, Settlement,
    rules::{Ask, Granted},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    OwnedObject, Owner, Shortfall, Store, StoreError,
    batch::{self, Batch, Item},
    book::{self, EntryNotes, Scope},
    changes::{self, Change},
    check, clock,
    credit::new_entry_id,
    fresh,
    link::Link,
    replica,
    sql::sql,
};

/// How long a hold waits for credit that replicas have leased and do not use.
const RECALL_MAX: Duration = Duration::from_secs(1);
const RECALL_POLL: Duration = Duration::from_millis(20);

/// Credits that are set aside in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingHold {
    /// Whose.
    pub owner: Owner,
    /// What is left of it.
    pub amount: Credits,
    id: Uuid,
}

/// What came of setting credits aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stood {
    /// They are.
    Held(StandingHold),
    /// They are not there: nothing has changed.
    Short(Shortfall),
}

/// A hold that somebody has to look after.
#[derive(Clone, Debug)]
pub struct Unattended {
    /// The hold.
    pub hold: StandingHold,
    /// What it is for; `None` while that is made, and where its maker has ended before.
    pub object: Option<OwnedObject>,
    /// When it began.
    pub created_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct HoldRow {
    account_id: Uuid,
    key_id: Uuid,
    id: Uuid,
    created_at: i64,
}

impl StandingHold {
    /// The hold for an object, without anything.
    #[must_use]
    pub fn ended(object: &OwnedObject) -> Self {
        Self {
            owner: object.owner,
            amount: Credits::ZERO,
            id: object.row(),
        }
    }

    /// The name that its leases are under.
    #[must_use]
    pub const fn holder(&self) -> ReplicaId {
        ReplicaId::from_uuid(self.id)
    }

    /// The row of what it is for.
    pub(crate) const fn id(&self) -> Uuid {
        self.id
    }

    fn account(&self) -> BudgetId {
        BudgetId::Account(self.owner.account)
    }
}

impl Store {
    /// Sets credits aside until [`Store::end_standing`]: of the account, and of the key where it has
    /// a limit. All or none.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`]: it may stand, and belongs to nothing.
    pub async fn stand(
        &self,
        owner: Owner,
        limited: bool,
        amount: Credits,
    ) -> Result<Stood, StoreError> {
        let hold = StandingHold {
            owner,
            amount: Credits::ZERO,
            id: fresh::uuid(),
        };
        self.raise_standing(&hold, limited, amount).await
    }

    /// Sets as much aside as is lacking to `amount`; begins the hold anew where it has ended.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn raise_standing(
        &self,
        hold: &StandingHold,
        limited: bool,
        amount: Credits,
    ) -> Result<Stood, StoreError> {
        let recall_until = clock::now() + RECALL_MAX;
        loop {
            let mut tx = self.begin().await?;
            let mut link = tx.link();
            let Some((short, idle)) = raise(&mut link, hold, limited, amount).await? else {
                tx.commit().await?;
                let amount = amount.max(hold.amount);
                return Ok(Stood::Held(StandingHold { amount, ..*hold }));
            };
            let lacking = amount.saturating_sub(hold.amount);
            let comes_back = short.available.saturating_add(idle) >= lacking;
            if !comes_back || clock::now() >= recall_until {
                return Ok(Stood::Short(short));
            }
            changes::announce(&mut link, Change::Recall(short.budget), None).await?;
            tx.commit().await?;
            self.wake();
            tokio::time::sleep(RECALL_POLL).await;
        }
    }

    /// The hold for an object; `None` where it has ended.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn standing_for(
        &self,
        object: &OwnedObject,
    ) -> Result<Option<StandingHold>, StoreError> {
        let select = sql("SELECT COALESCE(l.amount, 0) FROM standing_holds s \
             LEFT JOIN leases l ON l.account_id = s.account_id AND l.budget_id = s.account_id \
               AND l.replica_id = s.id \
             WHERE s.account_id = ? AND s.id = ?")
        .uuid(object.owner.account.uuid())
        .uuid(object.row());
        let mut reader = self.read().await?;
        let row: Option<(i64,)> = reader.link().maybe(select).await?;
        Ok(row.map(|(nanos,)| StandingHold {
            amount: Credits::from_nanos(nanos),
            ..StandingHold::ended(object)
        }))
    }

    /// Books what was done, each request once, in one transaction. What the hold does not cover is
    /// taken from the account where it is there, and borne by the operator else.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`]: it may be booked; do it again.
    pub async fn settle_standing(
        &self,
        hold: &StandingHold,
        settlements: impl IntoIterator<Item = Settlement>,
    ) -> Result<(), StoreError> {
        let batch = Batch {
            settlements: settlements.into_iter().map(Item::new).collect(),
            ..Batch::default()
        };
        if batch.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        let outcome = batch::book_lost(&mut link, hold.holder(), true, &batch).await?;
        mark(&mut link, hold).await?;
        tx.commit().await?;
        let losses = outcome.losses.into_values();
        self.note_loss(losses.fold(Credits::ZERO, Credits::saturating_add));
        Ok(())
    }

    /// Gives back what is left of a hold and ends it; doing so again is fine.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn end_standing(&self, hold: &StandingHold) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        // Its leases change under this lock alone.
        book::lock(&mut link, [hold.owner.account]).await?;
        let budgets = replica::leased_budgets(&mut link, hold.holder()).await?;
        let scope = Scope {
            budgets: budgets.into_iter().chain([hold.account()]).collect(),
            replica: Some(hold.holder()),
            ..Scope::default()
        };
        let mut loaded = book::load(&mut link, &scope).await?;
        loaded.book.reclaim(hold.holder())?;
        loaded.save(&mut link, &EntryNotes::default()).await?;
        let leases = sql("DELETE FROM leases WHERE account_id = ? AND replica_id = ?")
            .uuid(hold.owner.account.uuid())
            .uuid(hold.id);
        let row = sql("DELETE FROM standing_holds WHERE account_id = ? AND id = ?")
            .uuid(hold.owner.account.uuid())
            .uuid(hold.id);
        for delete in [leases, row] {
            link.run(delete).await?;
        }
        tx.commit().await
    }

    /// Holds that nobody has looked at for so long, at most so many: whoever gets one looks what
    /// became of its object.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`], [`StoreError::Corrupt`].
    pub async fn unattended(
        &self,
        for_so_long: Duration,
        most: u16,
    ) -> Result<Vec<Unattended>, StoreError> {
        let take = sql(
            "UPDATE standing_holds SET looked_at = {now} WHERE (account_id, id) IN (\
               SELECT account_id, id FROM standing_holds WHERE looked_at <= {now} - ? \
               ORDER BY looked_at LIMIT ? {free}) \
             RETURNING account_id, key_id, id, created_at",
        )
        .int(i64::try_from(for_so_long.as_micros()).unwrap_or(i64::MAX))
        .int(i64::from(most));
        let mut tx = self.begin().await?;
        let rows: Vec<HoldRow> = tx.link().all(take).await?;
        tx.commit().await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let hold = StandingHold {
                owner: Owner {
                    account: AccountId::from_uuid(row.account_id),
                    key: KeyId::from_uuid(row.key_id),
                },
                amount: Credits::ZERO,
                id: row.id,
            };
            all.push(Unattended {
                object: self.object_of(hold.owner, row.id).await?,
                created_at: check::timestamp(row.created_at)?,
                hold,
            });
        }
        Ok(all)
    }
}

/// Leases what is lacking to `amount`, of every budget or of none. Where it is not there: what is,
/// and what replicas lease of that budget and do not use.
async fn raise(
    link: &mut Link<'_>,
    hold: &StandingHold,
    limited: bool,
    amount: Credits,
) -> Result<Option<(Shortfall, Credits)>, StoreError> {
    let key = BudgetId::Key(hold.owner.account, hold.owner.key);
    let budgets = [Some(hold.account()), limited.then_some(key)];
    let scope = Scope {
        budgets: budgets.into_iter().flatten().collect(),
        replica: Some(hold.holder()),
        ..Scope::default()
    };
    let mut loaded = book::load(link, &scope).await?;
    for budget in budgets.into_iter().flatten() {
        let lease = loaded.book.leases().find(|lease| lease.budget == budget);
        let has = lease.map_or(Credits::ZERO, |lease| lease.amount);
        let lacking = amount.saturating_sub(has);
        if !lacking.is_positive() {
            continue;
        }
        let ask = Ask {
            need: lacking,
            asked: lacking,
            want: lacking,
        };
        let book = &mut loaded.book;
        if let Granted::Short {
            available,
            leased_elsewhere,
        } = book.acquire(budget, hold.holder(), ask, 1, &mut new_entry_id)?
        {
            let short = Shortfall {
                budget,
                available,
                held: Credits::ZERO,
                leased_elsewhere,
                unavailable: false,
            };
            return Ok(Some((short, idle(link, budget).await?)));
        }
    }
    loaded.save(link, &EntryNotes::default()).await?;
    let insert = sql(
        "INSERT INTO standing_holds (account_id, id, key_id, looked_at, created_at) \
         SELECT ?, ?, ?, {now}, {now} WHERE true ON CONFLICT (account_id, id) DO NOTHING",
    )
    .uuid(hold.owner.account.uuid())
    .uuid(hold.id)
    .uuid(hold.owner.key.uuid());
    link.run(insert).await?;
    mark(link, hold).await?;
    Ok(None)
}

/// What is leased of a budget and was not held at the last heartbeats.
async fn idle(link: &mut Link<'_>, budget: BudgetId) -> Result<Credits, StoreError> {
    let select = sql(
        "SELECT CAST(COALESCE(SUM(CASE WHEN amount > held THEN amount - held ELSE 0 END), 0) AS bigint) \
         FROM leases WHERE account_id = ? AND budget_id = ?",
    );
    let select = select.uuid(budget.account().uuid()).uuid(budget.uuid());
    let (nanos,): (i64,) = link.one(select).await?;
    Ok(Credits::from_nanos(nanos))
}

/// All that a standing hold has is held.
async fn mark(link: &mut Link<'_>, hold: &StandingHold) -> Result<(), StoreError> {
    let update = sql("UPDATE leases SET held = amount, updated_at = {now} \
         WHERE account_id = ? AND replica_id = ?");
    let update = update.uuid(hold.owner.account.uuid()).uuid(hold.id);
    link.run(update).await?;
    Ok(())
}
