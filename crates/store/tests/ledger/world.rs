//! A database of one's own for each test, and actors that use the ledger as the gateway does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{
    AccountId, Capture, Checkpoint, Credits, End, Path, Price, PriceId, Rates, ReplicaId,
    RequestFacts, RequestId, Reserved, Settlement, Timings,
};
use sqlx::{Connection, PgConnection, SqliteConnection};
use store::{
    Audit, CreatedKey, KeyRecord, Ledger, LedgerOptions, NewKey, OpenOptions, Shortfall, Store,
    StoreUrl,
};
use tokens::{Usage, UsageSource};
use uuid::Uuid;

/// Writes each test once and runs it on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() { super::$name(crate::world::World::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() { super::$name(crate::world::World::postgres().await).await; })*
        }
    };
}
pub(crate) use on_both;

/// A database.
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) store: Store,
    pub(crate) price: PriceId,
    pub(crate) _folder: Option<tempfile::TempDir>,
}

/// A lock that somebody else has.
pub(crate) enum Hanging {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Hanging {
    pub(crate) async fn let_go(self) {
        match self {
            Self::Postgres(connection) => connection.close().await.unwrap(),
            Self::Sqlite(connection) => connection.close().await.unwrap(),
        }
    }
}

/// A nano-credit amount.
pub(crate) fn n(nanos: i64) -> Credits {
    Credits::from_nanos(nanos)
}

/// Deadlines long enough for a loaded machine; nothing waits for them when all is well.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Quick leases, so that tests of expiry are short.
pub(crate) fn quick() -> LedgerOptions {
    LedgerOptions {
        lease_ttl: Duration::from_millis(1500),
        lease_margin: Duration::from_millis(300),
        poll: Duration::from_millis(50),
        chores: Duration::from_millis(100),
        ..LedgerOptions::default()
    }
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/tollway.db", folder.path().display());
        Self::at(url, Some(folder)).await
    }

    pub(crate) async fn postgres() -> Self {
        let database = tokio::task::spawn_blocking(throwaway_postgres::shared)
            .await
            .unwrap()
            .unwrap();
        Self::at(database.url().to_owned(), None).await
    }

    pub(crate) async fn at(url: String, folder: Option<tempfile::TempDir>) -> Self {
        let store = open(&url).await;
        // One nano-credit a token of output.
        let price = Price::new(Rates::plain(n(0), n(1_000_000)), Vec::new()).unwrap();
        let id = price.id().unwrap();
        store
            .record_prices(&[(id, "acme", "m", &price.to_json().unwrap())])
            .await
            .unwrap();
        Self {
            url,
            store,
            price: id,
            _folder: folder,
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    pub(crate) async fn ledger(&self, options: LedgerOptions) -> Ledger {
        Ledger::start(self.store.clone(), options).await.unwrap()
    }

    /// A second gateway: with a store of its own, where the database allows two.
    pub(crate) async fn other_ledger(&self, options: LedgerOptions) -> Ledger {
        let store = if self.is_postgres() {
            open(&self.url).await
        } else {
            self.store.clone()
        };
        Ledger::start(store, options).await.unwrap()
    }

    /// A key with an account of its own and these credits.
    pub(crate) async fn key(&self, credits: i64, limit: Option<i64>) -> CreatedKey {
        self.store
            .create_key(NewKey {
                name: "k".into(),
                credits: (credits > 0).then(|| n(credits)),
                limit: limit.map(n),
                ..NewKey::default()
            })
            .await
            .unwrap()
    }

    /// Runs SQL behind the program's back, as somebody who breaks the books would.
    pub(crate) async fn raw(&self, text: &str) {
        if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(text))
                .execute(&mut connection)
                .await
                .unwrap();
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(text))
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }

    /// Keeps charges from being written, as a database that hangs, until it is let go.
    pub(crate) async fn hold_charges(&self) -> Hanging {
        if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let lock = "BEGIN; LOCK TABLE charges IN ACCESS EXCLUSIVE MODE";
            sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
            Hanging::Postgres(connection)
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            let lock = "BEGIN IMMEDIATE";
            sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
            Hanging::Sqlite(connection)
        }
    }

    /// One number out of the database.
    pub(crate) async fn number(&self, text: &str) -> i64 {
        let text = sqlx::AssertSqlSafe(text);
        if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(text)
                .fetch_one(&mut connection)
                .await
                .unwrap()
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(text)
                .fetch_one(&mut connection)
                .await
                .unwrap()
        }
    }

    /// An id as a literal of this database.
    pub(crate) fn literal(&self, id: Uuid) -> String {
        if self.is_postgres() {
            format!("'{}'", id.hyphenated())
        } else {
            format!("x'{}'", id.simple())
        }
    }

    /// What an account has by the database alone: available, leased, spent.
    pub(crate) async fn budget(&self, id: Uuid) -> (i64, i64, i64) {
        let id = self.literal(id);
        let of = |column: &str| format!("SELECT {column} FROM budgets WHERE id = {id}");
        (
            self.number(&of("available")).await,
            self.number(&of("leased")).await,
            self.number(&of("spent")).await,
        )
    }

    pub(crate) async fn balanced(&self) -> Audit {
        let audit = self.store.audit().await.unwrap();
        assert!(audit.balanced, "{:#?}", audit.checks);
        audit
    }

    pub(crate) async fn total(&self, account: AccountId) -> i64 {
        let account = self.store.account(account).await.unwrap();
        account.balance.total.nanos()
    }

    /// A request of this key.
    pub(crate) fn facts(&self, key: &KeyRecord) -> Arc<RequestFacts> {
        Arc::new(RequestFacts {
            request_id: RequestId::from_uuid(Uuid::now_v7()),
            account_id: key.account_id,
            key_id: key.key_id,
            key_has_limit: key.has_limit(),
            endpoint: "chat.completions",
            model: "m".into(),
            provider: "acme".into(),
            price_id: self.price,
            stream: true,
        })
    }

    /// Takes `hold` and settles `charged` of it, as a request does.
    pub(crate) async fn spend(
        &self,
        ledger: &Ledger,
        key: &KeyRecord,
        hold: i64,
        charged: i64,
    ) -> Result<(), Shortfall> {
        let held = hold_from(ledger, &key.path, n(hold), soon()).await?;
        let settlement = settlement(&self.facts(key), held.replica(), charged, 0);
        held.spend(n(charged));
        ledger.reserve().unwrap().send(settlement);
        Ok(())
    }
}

pub(crate) async fn open(url: &str) -> Store {
    Store::open(&StoreUrl::parse(url).unwrap(), OpenOptions::default())
        .await
        .unwrap()
}

/// Loops over taking and obtaining, as admission does.
pub(crate) async fn hold_from(
    ledger: &Ledger,
    path: &Path,
    amount: Credits,
    deadline: Instant,
) -> Result<Reserved, Shortfall> {
    loop {
        if let Ok(held) = Reserved::take(path, amount, Instant::now()) {
            return Ok(held);
        }
        ledger.obtain(path, amount, Credits::ZERO, deadline).await?;
    }
}

/// A finished request that consumed `charged + owed` nano-credits' worth.
pub(crate) fn settlement(
    facts: &Arc<RequestFacts>,
    lease: ReplicaId,
    charged: i64,
    owed: i64,
) -> Settlement {
    Settlement {
        facts: Arc::clone(facts),
        lease,
        checkpointed: false,
        end: End::Completed,
        usage: usage(charged + owed),
        source: UsageSource::Reported,
        raw_usage: Some("{\"total_tokens\":1}".into()),
        counted: None,
        provider_cost: None,
        capture: Capture {
            cost: n(charged + owed),
            charged: n(charged),
            owed: n(owed),
            house_loss: n(0),
        },
        timings: Timings {
            duration_us: 1000,
            first_token_us: Some(10),
        },
    }
}

pub(crate) fn checkpoint(facts: &Arc<RequestFacts>, lease: ReplicaId, cost: i64) -> Checkpoint {
    Checkpoint {
        facts: Arc::clone(facts),
        lease,
        usage: usage(cost),
        cost: n(cost),
        provider_cost: None,
    }
}

pub(crate) fn usage(completion: i64) -> Usage {
    Usage {
        completion: u64::try_from(completion).unwrap(),
        ..Usage::default()
    }
}

/// Waits for something that must come by itself.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let deadline = soon();
    while !is().await {
        assert!(Instant::now() < deadline, "still not: {what}");
        // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until everything sent so far is in the database: a balance is told after it.
pub(crate) async fn flushed(ledger: &Ledger) {
    eventually("all settlements are written", || async {
        ledger.stats().in_flight == 0
    })
    .await;
    let _ = ledger
        .balance(AccountId::from_uuid(Uuid::nil()))
        .await
        .unwrap_err();
}
