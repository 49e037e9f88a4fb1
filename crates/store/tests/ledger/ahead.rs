//! Charges that go ahead of their batch: they are booked once, and never otherwise than the rules decide.

use std::time::Duration;

use billing::{Reserved, Settlement};
use sqlx::{Connection, PgConnection};
use store::{KeyRecord, Ledger, LedgerOptions};

use crate::world::{World, eventually, flushed, hold_from, n, settlement, soon};

/// Settlements that are worth a batch, with [`options`].
const ENOUGH: i64 = 32;
/// What each of them costs.
const COST: i64 = 7;
/// Attempts to see charges go ahead: on a busy machine they may be too old to be used.
const ROUNDS: usize = 10;

fn options() -> LedgerOptions {
    LedgerOptions {
        in_flight_max: 128,
        // Nothing comes between.
        chores: Duration::from_secs(3600),
        idle: Duration::from_secs(3600),
        ..LedgerOptions::default()
    }
}

/// A transaction of an operator's that has locked an account.
async fn lock(world: &World, key: &KeyRecord) -> PgConnection {
    let mut connection = PgConnection::connect(&world.url).await.unwrap();
    let id = world.literal(key.account_id.uuid());
    run(
        &mut connection,
        &format!("BEGIN; SELECT id FROM budgets WHERE id = {id} FOR UPDATE"),
    )
    .await;
    connection
}

async fn run(connection: &mut PgConnection, text: &str) {
    let text = sqlx::AssertSqlSafe(text);
    sqlx::raw_sql(text).execute(connection).await.unwrap();
}

async fn journals(world: &World, state: &str) -> i64 {
    world
        .number(&format!(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'tollway-journal' AND {state}"
        ))
        .await
}

fn send(ledger: &Ledger, settlements: &[Settlement]) {
    for settlement in settlements {
        ledger.reserve().unwrap().send(settlement.clone());
    }
}

fn some(world: &World, key: &KeyRecord, held: &Reserved, count: i64) -> Vec<Settlement> {
    let one = |_| settlement(&world.facts(key), held.replica(), COST, 0);
    (0..count).map(one).collect()
}

/// Sends `first`, which waits for the account, and then `second`, whose charges go ahead.
async fn send_both(
    world: &World,
    ledger: &Ledger,
    key: &KeyRecord,
    first: &[Settlement],
    second: &[Settlement],
) -> PgConnection {
    let lock = lock(world, key).await;
    send(ledger, first);
    eventually("a batch waits for the account", || async {
        journals(world, "wait_event_type = 'Lock'").await == 1
    })
    .await;
    send(ledger, second);
    eventually("charges went ahead", || async {
        journals(world, "state = 'idle in transaction'").await == 1
    })
    .await;
    lock
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn charges_go_ahead_of_their_batch() {
    let world = World::postgres().await;
    let ledger = world.ledger(options()).await;
    let mut sent_ahead = false;
    for _ in 0..ROUNDS {
        let key = world.key(2 * ENOUGH * COST, None).await;
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        let held = hold_from(&ledger, &record.path, n(2 * ENOUGH * COST), soon());
        let held = held.await.unwrap();
        let first = some(&world, &record, &held, 1);
        let second = some(&world, &record, &held, ENOUGH);
        let lock = send_both(&world, &ledger, &record, &first, &second).await;
        let now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let locked_until = world.number(&format!("SELECT {now}")).await;
        let charges = "SELECT COUNT(*) FROM charges WHERE account_id = ";
        let charges = format!("{charges}{}", world.literal(record.account_id.uuid()));
        assert_eq!(world.number(&charges).await, 0, "nothing is there yet");
        lock.close().await.unwrap();
        held.spend(n((1 + ENOUGH) * COST));
        flushed(&ledger).await;
        assert_eq!(world.number(&charges).await, 1 + ENOUGH);
        let early = format!("{charges} AND settled_at < {locked_until}");
        sent_ahead |= world.number(&early).await == ENOUGH;
        assert_eq!(world.total(record.account_id).await, (ENOUGH - 1) * COST);
        world.balanced().await;
        if sent_ahead {
            break;
        }
    }
    assert!(sent_ahead, "no charges went ahead in {ROUNDS} rounds");
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    world.balanced().await;
}

/// Sent by mistake in two batches at once: the one that goes ahead must not keep the other waiting
/// for ever, and one of them counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_settlement_in_both_batches_is_one_charge() {
    let world = World::postgres().await;
    let ledger = world.ledger(options()).await;
    let key = world.key(2 * ENOUGH * COST, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(2 * ENOUGH * COST), soon());
    let held = held.await.unwrap();
    let second = some(&world, &record, &held, ENOUGH);
    let lock = send_both(&world, &ledger, &record, &second[3..5], &second).await;
    lock.close().await.unwrap();
    held.spend(n(ENOUGH * COST));
    flushed(&ledger).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, ENOUGH);
    assert_eq!(world.total(record.account_id).await, ENOUGH * COST);
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    world.balanced().await;
}

/// Somebody takes credit out of the lease while the charges are under way. Several rounds, because
/// on a busy machine they may be too old to be used.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_rules_decide_otherwise() {
    const TAKEN: i64 = 10;
    let world = World::postgres().await;
    let ledger = world.ledger(options()).await;
    let all = (1 + ENOUGH) * COST;
    for round in 1..=5 {
        let key = world.key(all, None).await;
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        let held = hold_from(&ledger, &record.path, n(all), soon()).await;
        let held = held.unwrap();
        let first = some(&world, &record, &held, 1);
        let second = some(&world, &record, &held, ENOUGH);
        let mut lock = send_both(&world, &ledger, &record, &first, &second).await;
        let id = world.literal(record.account_id.uuid());
        let take = format!(
            "UPDATE leases SET amount = amount - {TAKEN} WHERE budget_id = {id}; \
             UPDATE budgets SET leased = leased - {TAKEN} WHERE id = {id}; \
             UPDATE grants SET remaining = remaining - {TAKEN} WHERE account_id = {id}; \
             INSERT INTO entries (account_id, id, kind, amount, created_at) \
             VALUES ({id}, gen_random_uuid(), 'adjustment', -{TAKEN}, 0); COMMIT"
        );
        run(&mut lock, &take).await;
        held.spend(n(all));
        flushed(&ledger).await;
        let charges = world.number("SELECT COUNT(*) FROM charges").await;
        assert_eq!(charges, round * (1 + ENOUGH));
        assert_eq!(world.total(record.account_id).await, 0);
        let audit = world.balanced().await;
        assert_eq!(audit.house_losses["usage_above_hold"], n(round * TAKEN));
    }
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
}
