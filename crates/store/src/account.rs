//! Accounts: made, listed and changed, with their balances.

use billing::{
    AccountId, BudgetId, Credits,
    rules::{BudgetRow, RuleError},
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Listed, Page, Store, StoreError,
    book::{self, EntryNotes, Scope},
    changes::{self, Change},
    check, fresh,
    link::{Link, Tx},
    sql::{Rows, sql},
};

/// What is asked for with a new account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAccount {
    /// For the operator's eyes; 1 to 200 characters.
    pub name: String,
    /// How far below zero it may go; usually zero.
    pub overdraft: Credits,
    /// The operator's own notes; at most 16 KiB as JSON.
    pub metadata: Map<String, Value>,
}

/// What is to change; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountPatch {
    /// The new name.
    pub name: Option<String>,
    /// The new overdraft; refused below what is used of it.
    pub overdraft: Option<Credits>,
    /// Whether its keys are refused.
    pub disabled: Option<bool>,
    /// The new notes, replacing all old ones.
    pub metadata: Option<Map<String, Value>>,
}

/// An account and its balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// For the operator's eyes.
    pub name: String,
    /// How far below zero it may go.
    pub overdraft: Credits,
    /// Whether its keys are refused.
    pub disabled: bool,
    /// The operator's own notes.
    pub metadata: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed, its balance apart.
    pub updated_at: Timestamp,
    /// Its balance.
    pub balance: Balance,
}

/// What an account has. `available + held = total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Can be held by a new request, on some replica.
    pub available: Credits,
    /// Set aside for running requests, as of the replicas' last heartbeats.
    pub held: Credits,
    /// The sum of the ledger.
    pub total: Credits,
    /// What its charges took so far.
    pub used: Credits,
}

#[derive(sqlx::FromRow)]
struct AccountRecord {
    id: Uuid,
    name: String,
    overdraft: i64,
    disabled: bool,
    metadata: String,
    created_at: i64,
    updated_at: i64,
    available: i64,
    leased: i64,
    spent: i64,
    held: i64,
}

const SELECT_ACCOUNT: &str = "SELECT a.id, a.name, a.overdraft, a.disabled, a.metadata, \
     a.created_at, a.updated_at, b.available, b.leased, b.spent, \
     CAST(COALESCE((SELECT SUM(l.held) FROM leases l \
        WHERE l.account_id = a.id AND l.budget_id = a.id), 0) AS bigint) AS held \
     FROM accounts a JOIN budgets b ON b.account_id = a.id AND b.id = a.id";

impl Store {
    /// Makes an account.
    ///
    /// # Errors
    /// [`StoreError::Invalid`].
    pub async fn create_account(&self, account: NewAccount) -> Result<Account, StoreError> {
        let mut tx = self.begin().await?;
        let id = create_account_in(&mut tx, &account).await?;
        let made = account_in(&mut tx.link(), id).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// All accounts, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn accounts(&self, page: Page) -> Result<Listed<Account>, StoreError> {
        let mut reader = self.read().await?;
        let select = sql(format!(
            "{SELECT_ACCOUNT} WHERE a.id < ? ORDER BY a.id DESC LIMIT ?"
        ));
        let rows: Vec<AccountRecord> = reader
            .link()
            .all(select.uuid(page.below()).int(page.fetch_rows()))
            .await?;
        let rows = rows
            .into_iter()
            .map(AccountRecord::account)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(page.cut(rows, |account| account.id.uuid()))
    }

    /// One account.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`].
    pub async fn account(&self, id: AccountId) -> Result<Account, StoreError> {
        let mut reader = self.read().await?;
        account_in(&mut reader.link(), id).await
    }

    /// Changes an account.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::Invalid`], [`StoreError::OverdraftInUse`].
    pub async fn update_account(
        &self,
        id: AccountId,
        patch: AccountPatch,
    ) -> Result<Account, StoreError> {
        if let Some(name) = &patch.name {
            check::name(name)?;
        }
        let metadata = patch.metadata.as_ref().map(check::metadata).transpose()?;
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        let mut loaded = book::load(&mut link, &account_scope(id)).await?;
        let there = account_in(&mut link, id).await?;
        let overdraft = patch.overdraft.unwrap_or(there.overdraft);
        check::not_negative("overdraft", overdraft)?;
        loaded.book.set_overdraft(id, overdraft).map_err(refused)?;
        loaded.save(&mut link, &EntryNotes::default()).await?;
        let update = sql(
            "UPDATE accounts SET name = ?, overdraft = ?, disabled = ?, \
             metadata = COALESCE(?, metadata), updated_at = {now} WHERE id = ?",
        )
        .text(patch.name.as_deref().unwrap_or(&there.name))
        .int(overdraft.nanos())
        .bool(patch.disabled.unwrap_or(there.disabled))
        .opt_text(metadata.as_deref())
        .uuid(id.uuid());
        link.run(update).await?;
        let account = account_in(&mut link, id).await?;
        changes::announce(&mut link, Change::Account(id), None).await?;
        tx.commit().await?;
        self.wake();
        Ok(account)
    }
}

pub(crate) async fn create_account_in(
    tx: &mut Tx<'_>,
    account: &NewAccount,
) -> Result<AccountId, StoreError> {
    check::name(&account.name)?;
    check::not_negative("overdraft", account.overdraft)?;
    let metadata = check::metadata(&account.metadata)?;
    let id = AccountId::from_uuid(fresh::uuid());
    let insert = sql("INSERT INTO accounts \
         (id, name, overdraft, disabled, metadata, created_at, updated_at) \
         SELECT id, ?, ?, ?, ?, {now}, {now} FROM {rows}")
    .text(&account.name)
    .int(account.overdraft.nanos())
    .bool(false)
    .text(&metadata)
    .rows(Rows::ids([id.uuid()]));
    let mut link = tx.link();
    link.run(insert).await?;
    let mut loaded = book::load(&mut link, &account_scope(id)).await?;
    loaded.book.open(BudgetRow {
        id: BudgetId::Account(id),
        available: Credits::ZERO,
        floor: account.overdraft.checked_neg().map_err(RuleError::from)?,
        leased: Credits::ZERO,
        spent: Credits::ZERO,
        debt: Credits::ZERO,
    });
    loaded.save(&mut link, &EntryNotes::default()).await?;
    Ok(id)
}

pub(crate) async fn account_in(link: &mut Link<'_>, id: AccountId) -> Result<Account, StoreError> {
    let select = sql(format!("{SELECT_ACCOUNT} WHERE a.id = ?"));
    link.maybe::<AccountRecord>(select.uuid(id.uuid()))
        .await?
        .ok_or(StoreError::UnknownAccount(id))?
        .account()
}

pub(crate) fn account_scope(id: AccountId) -> Scope {
    Scope {
        budgets: [BudgetId::Account(id)].into(),
        ..Scope::default()
    }
}

/// A rule's refusal in the words of the operator's call.
pub(crate) fn refused(error: RuleError) -> StoreError {
    match error {
        RuleError::BelowZero { available } => StoreError::BelowZero { available },
        RuleError::OverdraftInUse { available } => StoreError::OverdraftInUse { available },
        RuleError::Overflow => StoreError::Invalid {
            field: "amount",
            problem: "with it the balance would not fit; at most about 9.2 billion credits do",
        },
        RuleError::UnknownBudget | RuleError::Unbalanced => StoreError::Rule(error),
    }
}

impl AccountRecord {
    fn account(self) -> Result<Account, StoreError> {
        let total = Credits::from_nanos(self.available)
            .checked_add(Credits::from_nanos(self.leased))
            .map_err(RuleError::from)?;
        // A heartbeat may be older than a settlement that lowered the lease.
        let held = Credits::from_nanos(self.held.min(self.leased));
        Ok(Account {
            id: AccountId::from_uuid(self.id),
            name: self.name,
            overdraft: Credits::from_nanos(self.overdraft),
            disabled: self.disabled,
            metadata: check::stored_metadata(&self.metadata)?,
            created_at: check::timestamp(self.created_at)?,
            updated_at: check::timestamp(self.updated_at)?,
            balance: Balance {
                available: total.saturating_sub(held),
                held,
                total,
                used: Credits::from_nanos(self.spent),
            },
        })
    }
}
