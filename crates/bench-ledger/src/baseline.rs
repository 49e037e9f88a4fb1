//! What most gateways do at best: one conditional statement for each hold and one for each settlement.
//!
//! In Postgres a hold is one statement that lowers the account's row, if enough is left, and adds
//! the hold's row; a settlement is one that deletes that row, gives the rest back and adds a charge
//! of the ledger's shape. SQLite has no such statements, so each is a short transaction. Eight
//! connections, which is faster than more on a hot row; SQLite has one writer.

use std::{
    str::FromStr as _,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, Pool, Postgres, Sqlite,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    books,
    error::BenchError,
    load::{HOLD, Load, Random, Seen, Turns},
    plan::Kind,
    raw::Raw,
    world::World,
};

const CONNECTIONS: u32 = 8;
/// What every account has at first.
const CREDIT: i64 = 1_000_000_000_000_000;

/// The columns of a charge, and a row of them of which `$1` to `$5` are the id, the account, the
/// key, the cost and the price.
const CHARGE: &str = "INSERT INTO bench_charges (account_id, id, key_id, endpoint, model, provider, \
     price_id, stream, ended, cost, charged, house_loss, source, prompt, cached_prompt, \
     cache_write_5m, cache_write_1h, audio_prompt, image_prompt, completion, reasoning, \
     audio_completion, raw_usage, first_token_us, duration_us, late, created_at, settled_at) \
     SELECT $2, $1, $3, 'chat.completions', 'bench', 'bench', $5, true, 'completed', $4, $4, 0, \
     'reported', 0, 0, 0, 0, 0, 0, $4, 0, 0, \
     '{\"prompt_tokens\":0,\"completion_tokens\":600,\"total_tokens\":600,\"cost\":0}', \
     1000, 2000, false, 0, 0";

/// The tables of the baseline, beside the ledger's.
pub(crate) async fn prepare(raw: &mut Raw) -> Result<(), BenchError> {
    let kind = raw.kind();
    let tables = match kind {
        Kind::Postgres => {
            "CREATE TABLE bench_accounts (id uuid PRIMARY KEY, available bigint NOT NULL \
               CHECK (available >= 0)) WITH (fillfactor = 50); \
             CREATE TABLE bench_holds (id uuid PRIMARY KEY, account_id uuid NOT NULL, \
               amount bigint NOT NULL); \
             CREATE TABLE bench_charges (LIKE charges INCLUDING ALL)"
                .to_owned()
        }
        Kind::Sqlite => {
            let texts = raw
                .texts(
                    "SELECT sql FROM sqlite_master WHERE tbl_name = 'charges' \
                     AND type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC",
                )
                .await?;
            let alike: Vec<_> = texts
                .iter()
                .map(|text| text.replace("charges", "bench_charges"))
                .collect();
            format!(
                "CREATE TABLE bench_accounts (id BLOB PRIMARY KEY, available INTEGER NOT NULL \
                   CHECK (available >= 0)) STRICT; \
                 CREATE TABLE bench_holds (id BLOB PRIMARY KEY, account_id BLOB NOT NULL, \
                   amount INTEGER NOT NULL) STRICT; {}",
                alike.join(";")
            )
        }
    };
    raw.run(&tables).await?;
    raw.run(&format!(
        "INSERT INTO bench_accounts (id, available) SELECT id, {CREDIT} FROM accounts"
    ))
    .await?;
    books::settle_down(raw).await
}

/// The connections of one run.
#[derive(Clone)]
enum Pools {
    Sqlite(Pool<Sqlite>),
    Postgres(Pool<Postgres>),
}

/// One run, and a look whether the sums are right.
pub(crate) async fn run(world: &Arc<World>, load: Load) -> Result<Seen, BenchError> {
    let pools = match world.kind {
        Kind::Sqlite => {
            let options = SqliteConnectOptions::from_str(&world.url)?
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(30));
            let pool = SqlitePoolOptions::new().max_connections(1);
            Pools::Sqlite(pool.connect_with(options).await?)
        }
        Kind::Postgres => {
            let pool = PgPoolOptions::new()
                .max_connections(CONNECTIONS)
                .acquire_timeout(Duration::from_secs(60))
                .test_before_acquire(false);
            Pools::Postgres(pool.connect(&world.url).await?)
        }
    };
    let before = world.meter.read();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..load.tasks {
        let price = world.price_id.uuid();
        tasks.spawn(requests(pools.clone(), load, task, price));
    }
    let mut seen = Seen::default();
    while let Some(done) = tasks.join_next().await {
        seen.add(done??);
    }
    seen.took = began.elapsed();
    seen.used = world.meter.read().since(before);
    match pools {
        Pools::Sqlite(pool) => pool.close().await,
        Pools::Postgres(pool) => pool.close().await,
    }
    check(world).await?;
    Ok(seen)
}

async fn requests(pools: Pools, load: Load, task: usize, price: Uuid) -> Result<Seen, BenchError> {
    let mut random = Random::new(task);
    let mut turns = Turns::of(&load, task);
    let mut seen = Seen::default();
    while turns.next().await {
        let number = load.spread.pick(random.next());
        let (account, key) = (books::account(number), books::key(number));
        let id = Uuid::now_v7();
        let began = Instant::now();
        hold(&pools, id, account).await?;
        seen.covered.push(began.elapsed());
        settle(&pools, id, account, key, i64::from(random.cost()), price).await?;
        seen.requests += 1;
    }
    Ok(seen)
}

async fn hold(pools: &Pools, id: Uuid, account: Uuid) -> Result<(), BenchError> {
    let held = match pools {
        Pools::Postgres(pool) => sqlx::query(
            "WITH taken AS (UPDATE bench_accounts SET available = available - $3 \
               WHERE id = $2 AND available >= $3 RETURNING id) \
             INSERT INTO bench_holds (id, account_id, amount) SELECT $1, id, $3 FROM taken",
        )
        .bind(id)
        .bind(account)
        .bind(HOLD)
        .execute(pool)
        .await?
        .rows_affected(),
        Pools::Sqlite(pool) => {
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
            let taken = sqlx::query(
                "UPDATE bench_accounts SET available = available - $2 \
                 WHERE id = $1 AND available >= $2",
            )
            .bind(account)
            .bind(HOLD)
            .execute(&mut *tx)
            .await?;
            sqlx::query("INSERT INTO bench_holds (id, account_id, amount) VALUES ($1, $2, $3)")
                .bind(id)
                .bind(account)
                .bind(HOLD)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            taken.rows_affected()
        }
    };
    one_row(held)
}

async fn settle(
    pools: &Pools,
    id: Uuid,
    account: Uuid,
    key: Uuid,
    cost: i64,
    price: Uuid,
) -> Result<(), BenchError> {
    let settled = match pools {
        Pools::Postgres(pool) => sqlx::query(AssertSqlSafe(format!(
            "WITH ended AS (DELETE FROM bench_holds WHERE id = $1 RETURNING account_id, amount), \
             given AS (UPDATE bench_accounts a SET available = a.available + ended.amount - $4::bigint \
               FROM ended WHERE a.id = ended.account_id) {CHARGE} FROM ended"
        )))
        .bind(id)
        .bind(account)
        .bind(key)
        .bind(cost)
        .bind(price)
        .execute(pool)
        .await?
        .rows_affected(),
        Pools::Sqlite(pool) => {
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("DELETE FROM bench_holds WHERE id = $1")
                .bind(id)
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE bench_accounts SET available = available + $2 - $3 WHERE id = $1")
                .bind(account)
                .bind(HOLD)
                .bind(cost)
                .execute(&mut *tx)
                .await?;
            let booked = sqlx::query(CHARGE)
                .bind(id)
                .bind(account)
                .bind(key)
                .bind(cost)
                .bind(price)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            booked.rows_affected()
        }
    };
    one_row(settled)
}

fn one_row(rows: u64) -> Result<(), BenchError> {
    if rows == 1 {
        return Ok(());
    }
    Err(BenchError::Books {
        run: "a run of the baseline".into(),
        what: format!("a statement changed {rows} rows"),
    })
}

/// What is left and what was charged is what was there, and nothing is held.
async fn check(world: &World) -> Result<(), BenchError> {
    let mut raw = Raw::open(&world.url).await?;
    let off = raw
        .number(&format!(
            "SELECT CAST((SELECT SUM({CREDIT} - available) FROM bench_accounts) \
               - (SELECT COALESCE(SUM(charged), 0) FROM bench_charges) AS bigint)"
        ))
        .await?;
    let held = raw.number("SELECT COUNT(*) FROM bench_holds").await?;
    if off == 0 && held == 0 {
        return Ok(());
    }
    Err(BenchError::Books {
        run: "a run of the baseline".into(),
        what: format!("{off} nano-credits, {held} holds"),
    })
}
