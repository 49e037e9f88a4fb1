//! Loads the rows that a transaction touches into a [`Book`] and writes back what its rules changed.

use std::collections::{BTreeMap, BTreeSet};

use billing::{
    AccountId, BudgetId, Credits, End, EntryId, KeyId, ReplicaId, RequestId,
    rules::{Book, BookedCharge, BudgetRow, EntryRow, GrantRow, LeaseRow, Moment},
};
use uuid::Uuid;

use crate::{
    StoreError, grants,
    link::Link,
    sql::{Flavor, Rows, Sql, sql},
};

/// What a transaction is going to touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Budgets that are read or changed. The accounts of keys need not be named: they are locked.
    pub(crate) budgets: BTreeSet<BudgetId>,
    /// The most that may be drawn from an account, where that is known: then only as many of its
    /// grants are loaded as matter. Of all others every grant with a rest is.
    pub(crate) draws: BTreeMap<AccountId, Credits>,
    /// Requests that may be settled.
    pub(crate) requests: BTreeSet<(AccountId, RequestId)>,
    /// Those of them that may have been booked before. Should another one have been, the database
    /// refuses its second charge.
    pub(crate) maybe_booked: BTreeSet<(AccountId, RequestId)>,
    /// Whose leases.
    pub(crate) replica: Option<ReplicaId>,
}

impl Scope {
    /// Nothing of this budget's grants is used up, unless something else says so.
    pub(crate) fn draw_nothing(&mut self, budget: BudgetId) {
        if let BudgetId::Account(account) = budget {
            self.draws.entry(account).or_default();
        }
    }
}

/// A book, and what it looked like when it was loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) book: Book,
    budgets: BTreeMap<BudgetId, BudgetRow>,
    leases: BTreeMap<BudgetId, LeaseRow>,
    grants: BTreeMap<(AccountId, EntryId), GrantRow>,
}

/// What an operator's call adds to the entry that it makes.
#[derive(Debug, Default)]
pub(crate) struct EntryNotes<'a> {
    pub(crate) note: Option<&'a str>,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) request_hash: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct BudgetRecord {
    id: Uuid,
    account_id: Uuid,
    kind: String,
    available: i64,
    floor: i64,
    leased: i64,
    spent: i64,
    debt: i64,
    /// The lease of the replica in the scope.
    lease: Option<i64>,
    /// The database's clock, the same in every row.
    now: i64,
}

#[derive(sqlx::FromRow)]
struct BookedRecord {
    id: Uuid,
    cost: i64,
    charged: i64,
    checkpoint: bool,
    corrected: bool,
}

/// Locks and loads everything in `scope`.
///
/// The one lock order of the program: accounts' budget rows by id, and everything else of an
/// account only under that lock. The rows are read by later statements than the one that waited
/// for the locks, because a statement sees other tables as they were before it waited.
pub(crate) async fn load(link: &mut Link<'_>, scope: &Scope) -> Result<Loaded, StoreError> {
    lock(link, scope.budgets.iter().map(|id| id.account())).await?;
    let ids = Rows::new()
        .uuid(
            "account_id",
            scope.budgets.iter().map(|id| id.account().uuid()),
        )
        .uuid("id", scope.budgets.iter().map(|id| id.uuid()));
    let budgets = sql(
        "SELECT b.id, b.account_id, b.kind, b.available, b.floor, b.leased, b.spent, b.debt, \
         l.amount AS lease, {now} AS now FROM {rows} \
         JOIN budgets b ON b.account_id = s.account_id AND b.id = s.id \
         LEFT JOIN leases l ON l.account_id = b.account_id AND l.budget_id = b.id \
           AND l.replica_id = ?",
    );
    let replica = scope.replica.map_or(Uuid::nil(), ReplicaId::uuid);
    let budgets: Vec<BudgetRecord> = link.all(budgets.rows(ids).uuid(replica)).await?;
    let now = match budgets.first() {
        Some(row) => Moment(row.now),
        None => now(link).await?,
    };
    let grants = grants::load(link, scope, now).await?;
    let booked = booked(link, scope).await?;
    let leases = budgets
        .iter()
        .filter_map(|r| r.lease(scope.replica?).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    let budgets = budgets
        .into_iter()
        .map(|r| r.row())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Loaded {
        budgets: budgets.iter().map(|row| (row.id, row.clone())).collect(),
        leases: leases.iter().map(|row| (row.budget, *row)).collect(),
        grants: grants
            .iter()
            .map(|(account, row)| ((*account, row.id), *row))
            .collect(),
        book: Book::new(now, budgets, leases, grants, booked),
    })
}

/// Locks these accounts, in the order of their ids.
pub(crate) async fn lock(
    link: &mut Link<'_>,
    accounts: impl IntoIterator<Item = AccountId>,
) -> Result<(), StoreError> {
    let accounts: BTreeSet<Uuid> = accounts.into_iter().map(AccountId::uuid).collect();
    let lock = sql(
        "SELECT account_id FROM budgets WHERE (account_id, id) IN (SELECT id, id FROM {rows}) \
         ORDER BY account_id {lock}",
    );
    match link.flavor() {
        // Its transactions hold the one write lock from the start.
        Flavor::Sqlite => {}
        Flavor::Postgres => {
            link.run(lock.rows(Rows::ids(accounts))).await?;
        }
    }
    Ok(())
}

/// The database's clock.
pub(crate) async fn now(link: &mut Link<'_>) -> Result<Moment, StoreError> {
    let (now,) = link.one::<(i64,)>(sql("SELECT {now}")).await?;
    Ok(Moment(now))
}

async fn booked(
    link: &mut Link<'_>,
    scope: &Scope,
) -> Result<Vec<(RequestId, BookedCharge)>, StoreError> {
    if scope.maybe_booked.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Rows::new()
        .uuid("account_id", scope.maybe_booked.iter().map(|r| r.0.uuid()))
        .uuid("id", scope.maybe_booked.iter().map(|r| r.1.uuid()));
    let records: Vec<BookedRecord> = link
        .all(
            // A lost request that is known to have delivered something has the time of that;
            // what the reaper books from a checkpoint has none.
            sql("SELECT c.id, c.cost, c.charged, \
                 (c.ended = 'gateway_lost' AND c.first_token_us IS NULL) AS checkpoint, \
                 (EXISTS (SELECT 1 FROM house_losses h \
                          WHERE h.account_id = s.account_id AND h.id = s.id) \
                  OR EXISTS (SELECT 1 FROM entries e \
                             WHERE e.account_id = s.account_id AND e.id = s.id)) AS corrected \
                 FROM {rows} JOIN charges c ON c.account_id = s.account_id AND c.id = s.id")
            .rows(rows),
        )
        .await?;
    records
        .into_iter()
        .map(|record| {
            Ok((
                RequestId::from_uuid(record.id),
                BookedCharge {
                    cost: Credits::from_nanos(record.cost),
                    charged: Credits::from_nanos(record.charged),
                    checkpoint: record.checkpoint,
                    corrected: record.corrected,
                },
            ))
        })
        .collect()
}

impl Loaded {
    /// Writes what the rules changed.
    pub(crate) async fn save(
        &self,
        link: &mut Link<'_>,
        notes: &EntryNotes<'_>,
    ) -> Result<(), StoreError> {
        let changes = [
            self.save_budgets(link).await?,
            self.changed_leases(),
            self.save_grants(link).await?,
        ];
        link.run_together(changes.into_iter().flatten()).await?;
        save_entries(link, self.book.entries(), notes).await
    }

    /// Adds new budgets; tells how the others change.
    async fn save_budgets(&self, link: &mut Link<'_>) -> Result<Option<Sql>, StoreError> {
        let (new, changed): (Vec<_>, Vec<_>) = self
            .book
            .budgets()
            .filter(|row| self.budgets.get(&row.id) != Some(row))
            .partition(|row| !self.budgets.contains_key(&row.id));
        let rows = |of: &[&BudgetRow]| {
            Rows::new()
                .uuid("account_id", of.iter().map(|b| b.id.account().uuid()))
                .uuid("id", of.iter().map(|b| b.id.uuid()))
                .int("available", of.iter().map(|b| b.available.nanos()))
                .int("floor", of.iter().map(|b| b.floor.nanos()))
                .int("leased", of.iter().map(|b| b.leased.nanos()))
                .int("spent", of.iter().map(|b| b.spent.nanos()))
                .int("debt", of.iter().map(|b| b.debt.nanos()))
        };
        if !new.is_empty() {
            let rows = rows(&new).text("kind", new.iter().map(|b| kind(b.id)));
            insert(link, "budgets", rows).await?;
        }
        let update = sql(
            "UPDATE budgets SET available = s.available, floor = s.floor, \
             leased = s.leased, spent = s.spent, debt = s.debt \
             FROM {rows} WHERE budgets.account_id = s.account_id AND budgets.id = s.id",
        );
        Ok((!changed.is_empty()).then(|| update.rows(rows(&changed))))
    }

    fn changed_leases(&self) -> Option<Sql> {
        let changed: Vec<_> = self
            .book
            .leases()
            .filter(|row| self.leases.get(&row.budget) != Some(row))
            .collect();
        if changed.is_empty() {
            return None;
        }
        let rows = Rows::new()
            .uuid(
                "account_id",
                changed.iter().map(|l| l.budget.account().uuid()),
            )
            .uuid("budget_id", changed.iter().map(|l| l.budget.uuid()))
            .uuid("replica_id", changed.iter().map(|l| l.replica.uuid()))
            .int("amount", changed.iter().map(|l| l.amount.nanos()));
        let upsert = sql(
            "INSERT INTO leases (account_id, budget_id, replica_id, amount, held, updated_at) \
             SELECT account_id, budget_id, replica_id, amount, 0, {now} FROM {rows} WHERE true \
             ON CONFLICT (account_id, budget_id, replica_id) \
             DO UPDATE SET amount = excluded.amount, updated_at = excluded.updated_at",
        );
        Some(upsert.rows(rows))
    }

    /// Adds new grants; tells how the others change.
    async fn save_grants(&self, link: &mut Link<'_>) -> Result<Option<Sql>, StoreError> {
        let (new, changed): (Vec<_>, Vec<_>) = self
            .book
            .grants()
            .filter(|(account, row)| self.grants.get(&(*account, row.id)) != Some(row))
            .partition(|(account, row)| !self.grants.contains_key(&(*account, row.id)));
        if !new.is_empty() {
            let now = self.book.now().0;
            let rows = Rows::new()
                .uuid("account_id", new.iter().map(|(a, _)| a.uuid()))
                .uuid("id", new.iter().map(|(_, g)| g.id.uuid()))
                .text("kind", new.iter().map(|(_, g)| g.kind.as_str()))
                .int("amount", new.iter().map(|(_, g)| g.amount.nanos()))
                .int("remaining", new.iter().map(|(_, g)| g.remaining.nanos()))
                .opt_int(
                    "expires_at",
                    new.iter().map(|(_, g)| g.expires_at.map(|at| at.0)),
                )
                .int("created_at", new.iter().map(|_| now));
            insert(link, "grants", rows).await?;
        }
        if changed.is_empty() {
            return Ok(None);
        }
        let rows = Rows::new()
            .uuid("account_id", changed.iter().map(|(a, _)| a.uuid()))
            .uuid("id", changed.iter().map(|(_, g)| g.id.uuid()))
            .int(
                "remaining",
                changed.iter().map(|(_, g)| g.remaining.nanos()),
            );
        let update = sql("UPDATE grants SET remaining = s.remaining FROM {rows} \
             WHERE grants.account_id = s.account_id AND grants.id = s.id");
        Ok(Some(update.rows(rows)))
    }
}

async fn save_entries(
    link: &mut Link<'_>,
    entries: &[EntryRow],
    notes: &EntryNotes<'_>,
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    // Notes belong to the operator's own entry, which is the last; expiries come before it.
    let last = entries.len() - 1;
    let own = |index: usize| index == last;
    let key = |index| notes.idempotency_key.filter(|_| own(index));
    let rows = Rows::new()
        .uuid("account_id", entries.iter().map(|e| e.account.uuid()))
        .uuid("id", entries.iter().map(|e| e.id.uuid()))
        .text("kind", entries.iter().map(|e| e.kind.as_str()))
        .int("amount", entries.iter().map(|e| e.amount.nanos()))
        .opt_uuid(
            "grant_id",
            entries.iter().map(|e| e.grant.map(EntryId::uuid)),
        )
        .opt_text("reference", entries.iter().map(|e| e.reference.as_deref()))
        .opt_text("note", (0..=last).map(|i| notes.note.filter(|_| own(i))))
        .opt_text("idempotency_key", (0..=last).map(key))
        .opt_bytes(
            "request_hash",
            (0..=last).map(|i| notes.request_hash.clone().filter(|_| own(i))),
        );
    let names = rows.names();
    let text =
        format!("INSERT INTO entries ({names}, created_at) SELECT {names}, {{now}} FROM {{rows}}");
    link.run(sql(text).rows(rows)).await?;
    Ok(())
}

/// Inserts a set of rows whose columns are named as the table's.
pub(crate) async fn insert(
    link: &mut Link<'_>,
    table: &'static str,
    rows: Rows,
) -> Result<(), StoreError> {
    link.insert(table, &rows).await
}

pub(crate) fn kind(id: BudgetId) -> &'static str {
    match id {
        BudgetId::Account(_) => "account",
        BudgetId::Key(..) => "key",
    }
}

pub(crate) fn budget_id(kind: &str, account: Uuid, id: Uuid) -> Result<BudgetId, StoreError> {
    match kind {
        "account" if account == id => Ok(BudgetId::Account(AccountId::from_uuid(id))),
        "key" => Ok(BudgetId::Key(
            AccountId::from_uuid(account),
            KeyId::from_uuid(id),
        )),
        _ => Err(StoreError::Corrupt(format!("a budget of kind {kind}"))),
    }
}

pub(crate) fn parse_end(text: &str) -> Result<End, StoreError> {
    End::ALL
        .into_iter()
        .find(|end| end.as_str() == text)
        .ok_or_else(|| StoreError::Corrupt(format!("an end {text}")))
}

impl BudgetRecord {
    fn lease(&self, replica: ReplicaId) -> Result<Option<LeaseRow>, StoreError> {
        let Some(amount) = self.lease else {
            return Ok(None);
        };
        Ok(Some(LeaseRow {
            budget: budget_id(&self.kind, self.account_id, self.id)?,
            replica,
            amount: Credits::from_nanos(amount),
        }))
    }

    fn row(self) -> Result<BudgetRow, StoreError> {
        Ok(BudgetRow {
            id: budget_id(&self.kind, self.account_id, self.id)?,
            available: Credits::from_nanos(self.available),
            floor: Credits::from_nanos(self.floor),
            leased: Credits::from_nanos(self.leased),
            spent: Credits::from_nanos(self.spent),
            debt: Credits::from_nanos(self.debt),
        })
    }
}
