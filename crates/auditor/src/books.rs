//! The rows of the books, as they lie in the database.

use serde::Deserialize;

use crate::{
    AuditorError, Credit, Database, Tokens,
    database::Column::{self, Bool, Id, Plain},
};

/// Everything, from one snapshot.
#[derive(Clone, Debug, Default)]
pub struct Books {
    pub(crate) accounts: Vec<AccountRow>,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) budgets: Vec<BudgetRow>,
    /// The runs of processes.
    pub replicas: Vec<ReplicaRow>,
    pub(crate) leases: Vec<LeaseRow>,
    /// Holds that have leases of their own, as replicas have.
    pub(crate) standing_holds: Vec<StandingHoldRow>,
    pub(crate) grants: Vec<GrantRow>,
    pub(crate) entries: Vec<EntryRow>,
    pub(crate) prices: Vec<PriceRow>,
    pub(crate) charges: Vec<ChargeRow>,
    pub(crate) house_losses: Vec<LossRow>,
    pub(crate) checkpoints: Vec<CheckpointRow>,
    pub(crate) dead_settlements: Vec<DeadRow>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AccountRow {
    pub(crate) id: String,
    pub(crate) overdraft: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) limit_credits: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct BudgetRow {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) available: i64,
    pub(crate) leased: i64,
    pub(crate) spent: i64,
    pub(crate) debt: i64,
}

/// One run of a process.
#[derive(Clone, Debug, Deserialize)]
pub struct ReplicaRow {
    /// Its id.
    pub id: String,
    /// `alive`, `closed` or `reaped`.
    pub state: String,
    /// The name of its host.
    pub host: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LeaseRow {
    pub(crate) budget_id: String,
    pub(crate) replica_id: String,
    pub(crate) amount: i64,
    pub(crate) held: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StandingHoldRow {
    pub(crate) id: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GrantRow {
    pub(crate) account_id: String,
    pub(crate) id: String,
    pub(crate) amount: i64,
    pub(crate) remaining: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct EntryRow {
    pub(crate) account_id: String,
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) reference: Option<String>,
    pub(crate) created_at: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PriceRow {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) price: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ChargeRow {
    pub(crate) account_id: String,
    pub(crate) id: String,
    pub(crate) key_id: String,
    pub(crate) model: String,
    pub(crate) price_id: String,
    pub(crate) ended: String,
    pub(crate) source: String,
    pub(crate) cost: i64,
    pub(crate) charged: i64,
    pub(crate) house_loss: i64,
    #[serde(flatten)]
    pub(crate) tokens: Tokens,
    /// What the operator owes the provider, where that is not the cost.
    pub(crate) provider_cost: Option<i64>,
    pub(crate) late: bool,
    pub(crate) settled_at: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LossRow {
    pub(crate) id: String,
    pub(crate) amount: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CheckpointRow {
    pub(crate) request_id: String,
    pub(crate) replica_id: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DeadRow {
    pub(crate) request_id: String,
    pub(crate) problem: String,
}

const BUDGET: [Column; 6] = [
    Id("id"),
    Plain("kind"),
    Plain("available"),
    Plain("leased"),
    Plain("spent"),
    Plain("debt"),
];
const ENTRY: [Column; 6] = [
    Id("account_id"),
    Id("id"),
    Plain("kind"),
    Plain("amount"),
    Plain("reference"),
    Plain("created_at"),
];
const CHARGE: [Column; 29] = [
    Id("account_id"),
    Id("id"),
    Id("key_id"),
    Plain("model"),
    Id("price_id"),
    Plain("ended"),
    Plain("source"),
    Plain("cost"),
    Plain("charged"),
    Plain("house_loss"),
    Plain("prompt"),
    Plain("cached_prompt"),
    Plain("cache_write_5m"),
    Plain("cache_write_1h"),
    Plain("audio_prompt"),
    Plain("image_prompt"),
    Plain("completion"),
    Plain("reasoning"),
    Plain("audio_completion"),
    Plain("image_completion"),
    Plain("images"),
    Plain("milliseconds"),
    Plain("characters"),
    Plain("searches"),
    Plain("pages"),
    Plain("provider_cost"),
    Bool("late"),
    Plain("created_at"),
    Plain("settled_at"),
];

impl Books {
    /// Reads the tables, within a transaction of the caller's.
    pub(crate) async fn read(database: &mut Database) -> Result<Self, AuditorError> {
        Ok(Self {
            accounts: database
                .rows("accounts", &[Id("id"), Plain("overdraft")])
                .await?,
            keys: database
                .rows("keys", &[Id("id"), Plain("limit_credits")])
                .await?,
            budgets: database.rows("budgets", &BUDGET).await?,
            replicas: Self::replicas(database).await?,
            leases: database
                .rows(
                    "leases",
                    &[
                        Id("budget_id"),
                        Id("replica_id"),
                        Plain("amount"),
                        Plain("held"),
                    ],
                )
                .await?,
            standing_holds: database.rows("standing_holds", &[Id("id")]).await?,
            grants: database
                .rows(
                    "grants",
                    &[
                        Id("account_id"),
                        Id("id"),
                        Plain("amount"),
                        Plain("remaining"),
                    ],
                )
                .await?,
            entries: database.rows("entries", &ENTRY).await?,
            prices: database
                .rows("prices", &[Id("id"), Plain("model"), Plain("price")])
                .await?,
            charges: database.rows("charges", &CHARGE).await?,
            house_losses: database
                .rows("house_losses", &[Id("id"), Plain("amount")])
                .await?,
            checkpoints: database
                .rows("checkpoints", &[Id("request_id"), Id("replica_id")])
                .await?,
            dead_settlements: database
                .rows("dead_settlements", &[Id("request_id"), Plain("problem")])
                .await?,
        })
    }

    /// The entries that are there, as records: for what was there before anybody wrote down.
    #[must_use]
    pub fn entries_so_far(&self) -> Vec<Credit> {
        let record = |entry: &EntryRow| Credit {
            account_id: entry.account_id.clone(),
            reference: entry.id.clone(),
            amount: crate::money::decimal(entry.amount.into()),
            acknowledged: true,
        };
        self.entries.iter().map(record).collect()
    }

    pub(crate) async fn replicas(database: &mut Database) -> Result<Vec<ReplicaRow>, AuditorError> {
        database
            .rows("replicas", &[Id("id"), Plain("state"), Plain("host")])
            .await
    }

    /// Whether what remains of every account's grants, less its debt, is its balance; and how much
    /// all leases hold together. For looking while the program runs.
    #[must_use]
    pub fn grants_are_the_balance(&self) -> bool {
        crate::proof::grants_are_the_balance(self)
    }

    /// What is leased and held of a budget by all replicas together, as of their last heartbeats,
    /// in nano-credits.
    #[must_use]
    pub fn leased_and_held(&self, budget: &str) -> (i128, i128) {
        let of_it = || self.leases.iter().filter(|lease| lease.budget_id == budget);
        (
            of_it().map(|lease| i128::from(lease.amount)).sum(),
            of_it().map(|lease| i128::from(lease.held)).sum(),
        )
    }
}
