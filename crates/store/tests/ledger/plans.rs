//! The journal's statements find their rows by index, however many there are: Postgres says how often it read a whole table.

use std::time::{Duration, Instant};

use store::LedgerOptions;

use crate::world::{World, eventually, flushed, hold_from, n, settlement, soon};

/// Tables that grow with customers or with traffic.
const GROWING: [&str; 8] = [
    "charges",
    "budgets",
    "leases",
    "grants",
    "entries",
    "house_losses",
    "checkpoints",
    "dead_settlements",
];
/// Requests of the test, which are all settled twice: then each looks for itself by index.
const REQUESTS: usize = 200;

/// Fills the tables that grow, for so many accounts; returns how many rows the charges have then.
async fn fill(world: &World, accounts: usize) -> i64 {
    // Enough that reading a whole table costs the planner more than any way around it.
    let rows = "INSERT INTO accounts (id, name, overdraft, disabled, metadata, created_at, updated_at) \
             SELECT md5('a' || i)::uuid, 'n', 0, false, '{}', 0, 0 FROM generate_series(1, {accounts}) i; \
             INSERT INTO budgets (id, account_id, kind, available, floor, leased, spent, debt) \
             SELECT id, id, 'account', 1, 0, 0, 0, 0 FROM accounts \
             WHERE NOT EXISTS (SELECT 1 FROM budgets b WHERE b.id = accounts.id); \
             INSERT INTO leases (account_id, budget_id, replica_id, amount, held, updated_at) \
             SELECT id, id, md5('r')::uuid, 0, 0, 0 FROM accounts; \
             INSERT INTO grants (account_id, id, kind, amount, remaining, created_at) \
             SELECT id, md5('g' || id::text)::uuid, 'promo', 1, 1, 0 FROM accounts; \
             INSERT INTO entries (account_id, id, kind, amount, created_at) \
             SELECT id, md5('g' || id::text)::uuid, 'promo', 1, 0 FROM accounts; \
             INSERT INTO charges (account_id, id, key_id, endpoint, model, provider, price_id, \
               stream, ended, cost, charged, house_loss, source, prompt, cached_prompt, \
               cache_write_5m, cache_write_1h, audio_prompt, image_prompt, completion, reasoning, \
               audio_completion, duration_us, late, created_at, settled_at) \
             SELECT md5('a' || (1 + i % {accounts}))::uuid, md5('c' || i)::uuid, md5('k')::uuid, 'e', 'm', \
               'p', md5('p')::uuid, true, 'completed', 0, 0, 0, 'counted', 0, 0, 0, 0, 0, 0, 0, 0, 0, \
               1, false, 0, 0 FROM generate_series(1, 200000) i; \
             ANALYZE";
    world
        .raw(&rows.replace("{accounts}", &accounts.to_string()))
        .await;
    world.number("SELECT COUNT(*) FROM charges").await
}

/// How often each table was read as a whole, partitions with their table.
async fn scans(world: &World) -> Vec<(&'static str, i64)> {
    let mut all = Vec::new();
    for table in GROWING {
        let text = format!(
            "SELECT COALESCE(SUM(seq_scan), 0)::bigint FROM pg_stat_user_tables \
             WHERE relname = '{table}' OR relname LIKE '{table}\\_%'"
        );
        all.push((table, world.number(&text).await));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_table_that_grows_is_read_as_a_whole() {
    let world = World::postgres().await;
    assert!(fill(&world, 20_000).await >= 200_000);
    let found = "SELECT COALESCE(SUM(idx_scan), 0)::bigint FROM pg_stat_user_tables \
         WHERE relname LIKE 'charges%'";
    let key = world.key(1_000_000, None).await;
    let ledger = world
        .ledger(LedgerOptions {
            // Chores of all replicas together may look at a whole table now and then.
            chores: Duration::from_secs(3600),
            ..LedgerOptions::default()
        })
        .await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    // A connection tells what it read when it ends at the latest.
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND backend_type = 'client backend' AND application_name NOT LIKE 'tollway%' \
         AND pid <> pg_backend_pid()";
    eventually("the filling has ended", || async {
        world.number(others).await == 0
    })
    .await;
    let before = scans(&world).await;
    let held = hold_from(&ledger, &record.path, n(10_000), soon()).await;
    let held = held.unwrap();
    let one = |_| settlement(&world.facts(&record), held.replica(), 7, 0);
    let settlements: Vec<_> = (0..REQUESTS).map(one).collect();
    for _ in 0..2 {
        for settlement in &settlements {
            ledger.reserve().unwrap().send(settlement.clone());
        }
        flushed(&ledger).await;
    }
    held.spend(n(1_400));
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    eventually("the server tells what was read", || async {
        world.number(found).await >= i64::try_from(REQUESTS).unwrap()
    })
    .await;
    let after = scans(&world).await;
    assert_eq!(after, before, "a table was read as a whole");
}

/// With every account compared with every other one it takes a minute and a half on a quiet machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_audit_compares_each_account_once() {
    let world = World::postgres().await;
    assert!(fill(&world, 60_000).await >= 200_000);
    let begun = Instant::now();
    let audit = world.store.audit().await.unwrap();
    let took = begun.elapsed();
    println!("an audit of 60,000 accounts and 200,000 charges took {took:?}");
    for check in audit.checks {
        // These charges are of no key's and at no price, and the budgets know nothing of them.
        let known = ["keys_of_accounts", "costs", "spent"].contains(&check.name);
        assert!(check.ok || known, "{check:?}");
    }
    assert!(took < Duration::from_secs(30), "{took:?}");
}
