//! Charges are kept by the month: an older database is converted, months are made ahead, nothing gets lost.

use billing::{Price, Rates};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use store::{LedgerOptions, Month};
use uuid::Uuid;

use crate::{
    closing::{close, facts_at, months_ago, settle},
    upgrade::as_left_by,
    world::{World, flushed, n, on_both, open, quick},
};

/// The first id of a month, and some more of it.
fn id_in(month: Month, number: u128) -> Uuid {
    let ms = u128::try_from(month.start().unwrap().as_millisecond()).unwrap();
    Uuid::from_u128((ms << 80) | (7 << 76) | (2 << 62) | number)
}

/// An account with 100 credits, and a charge of 10 for each id.
fn rows_of_before(literal: &dyn Fn(Uuid) -> String, charges: &[Uuid]) -> String {
    let price = Price::new(Rates::plain(n(0), n(1_000_000)), Vec::new()).unwrap();
    let price_id = literal(price.id().unwrap().uuid());
    let json = price.to_json().unwrap();
    let [account, key, entry] = [1, 2, 3].map(|id| literal(Uuid::from_u128(id)));
    let digest = if literal(Uuid::nil()).starts_with('x') {
        "x'00'"
    } else {
        "'\\x00'"
    };
    let spent = 10 * i64::try_from(charges.len()).unwrap();
    let mut sql = format!(
        "INSERT INTO accounts VALUES ({account}, 'a', 0, false, '{{}}', 1, 1); \
         INSERT INTO keys VALUES ({key}, {account}, 'k', {digest}, 'p', NULL, NULL, NULL, NULL, \
           '{{}}', 1, 1); \
         INSERT INTO budgets VALUES ({account}, {account}, 'account', 100 - {spent}, 0, 0, \
           {spent}, 0), ({key}, {account}, 'key', -{spent}, 0, 0, {spent}, 0); \
         INSERT INTO entries VALUES ({account}, {entry}, 'purchase', 100, {entry}, NULL, NULL, \
           NULL, NULL, 1); \
         INSERT INTO grants VALUES ({account}, {entry}, 'purchase', 100, 100 - {spent}, NULL, 1); \
         INSERT INTO prices VALUES ({price_id}, 'acme', 'm', '{json}', 1); "
    );
    for id in charges {
        let created = (id.as_u128() >> 80) * 1000;
        let id = literal(*id);
        sql.push_str(&format!(
            "INSERT INTO charges VALUES ({account}, {id}, {key}, 'chat.completions', 'm', 'acme', \
             {price_id}, false, 'completed', 10, 10, 0, 'counted', 0, 0, 0, 0, 0, 0, 10, 0, 0, \
             NULL, NULL, 1, false, {created}, {created}); "
        ));
    }
    sql
}

async fn a_database_of_before_keeps_its_charges(url: String, folder: Option<tempfile::TempDir>) {
    let old = months_ago(4);
    let long_gone: Month = "1971-02".parse().unwrap();
    let charges = [
        id_in(months_ago(0), 1),
        id_in(old, 1),
        id_in(old, 2),
        id_in(months_ago(2), 1),
        id_in(long_gone, 1),
    ];
    let literal: fn(Uuid) -> String = if url.starts_with("postgres") {
        |id| format!("'{}'", id.hyphenated())
    } else {
        |id| format!("x'{}'", id.simple())
    };
    let rows = sqlx::AssertSqlSafe(rows_of_before(&literal, &charges));
    if url.starts_with("postgres") {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    } else {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    }
    let world = World::at(url, folder).await;
    let audit = world.balanced().await;
    let counted = audit.checks.iter().find(|c| c.name == "costs").unwrap();
    assert_eq!(counted.rows_checked, 5);
    let kept: Vec<_> = world
        .store
        .charges(&store::ChargeFilter::default(), store::Page::default())
        .await
        .unwrap()
        .data
        .iter()
        .map(|charge| charge.id.uuid())
        .collect();
    let mut expected = charges.to_vec();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(kept, expected);
    if world.is_postgres() {
        for (table, rows) in [
            (partition(old), 2),
            (partition(months_ago(2)), 1),
            (partition(months_ago(0)), 1),
            ("charges_other".into(), 1),
        ] {
            let count = world.number(&format!("SELECT COUNT(*) FROM {table}")).await;
            assert_eq!(count, rows, "{table}");
        }
    }
    for month in [old, long_gone] {
        close(&world, month).await;
        world.balanced().await;
    }
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 2);
}

fn partition(month: Month) -> String {
    format!("charges_{}", month.to_string().replace('-', "_"))
}

mod converted {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/tollway.db", folder.path().display());
        as_left_by(1, &url).await;
        a_database_of_before_keeps_its_charges(url, Some(folder)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_postgres() {
        let database = tokio::task::spawn_blocking(throwaway_postgres::shared)
            .await
            .unwrap()
            .unwrap();
        as_left_by(1, database.url()).await;
        a_database_of_before_keeps_its_charges(database.url().to_owned(), None).await;
    }
}

/// Six replicas start at once on an empty database: each month is made once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn months_are_made_ahead_by_whoever_comes_first() {
    let database = tokio::task::spawn_blocking(throwaway_postgres::shared)
        .await
        .unwrap()
        .unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let url = database.url().to_owned();
            tokio::spawn(async move { open(&url).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let world = World::at(database.url().to_owned(), None).await;
    let made = "SELECT COUNT(*) FROM pg_inherits WHERE inhparent = 'charges'::regclass";
    assert_eq!(world.number(made).await, 4);
    // A month ahead that somebody removed is made again by the next start.
    let next = partition(months_ago(-1));
    world.raw(&format!("DROP TABLE {next}")).await;
    let again = open(&world.url).await;
    assert_eq!(world.number(made).await, 4);
    assert!(again.audit().await.unwrap().balanced);
}

/// What came before its month was made is in the rest, and moves when the month is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_came_early_moves_to_its_month() {
    let world = World::postgres().await;
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let early = months_ago(-5);
    let at = early.start().unwrap();
    settle(&ledger, &facts_at(&world, &record, at), 5).await;
    let rest = "SELECT COUNT(*) FROM charges_other";
    assert_eq!(world.number(rest).await, 1);
    world.balanced().await;
    let make = format!("SELECT make_charges_month('{early}-01')");
    world.raw(&make).await;
    world.raw(&make).await;
    assert_eq!(world.number(rest).await, 0);
    let there = format!("SELECT COUNT(*) FROM {}", partition(early));
    assert_eq!(world.number(&there).await, 1);
    // The guards are in force again, in the rest as in the month.
    world.balanced().await;
}

async fn what_is_closed_cannot_be_changed(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let old = months_ago(4);
    let at = old.start().unwrap();
    settle(&ledger, &facts_at(&world, &record, at), 5).await;
    close(&world, old).await;
    let late = facts_at(&world, &record, at);
    settle(&ledger, &late, 5).await;
    world
        .store
        .resolve_settlement(late.request_id, store::ResolvedAs::Charge, "n")
        .await
        .unwrap();
    let mut statements = vec![
        "UPDATE closings SET charged = 0, house_loss = cost",
        "DELETE FROM closings",
        "UPDATE resolutions SET note = 'x'",
        "DELETE FROM resolutions",
        "UPDATE dead_settlements SET problem = 'x'",
        "DELETE FROM dead_settlements",
        "UPDATE closed_months SET state = 'dropping'",
        "DELETE FROM closed_months",
        // Of a closed month too, by a decision of somebody.
        "DELETE FROM charges",
        "UPDATE charges SET cost = cost",
    ];
    if world.is_postgres() {
        statements.extend([
            "DELETE FROM charges_other",
            "TRUNCATE charges_other",
            "TRUNCATE charges",
            "TRUNCATE closings",
            "TRUNCATE resolutions",
            "TRUNCATE dead_settlements",
            "TRUNCATE closed_months",
        ]);
    }
    for text in statements {
        let refused = crate::admin::refused(&world, text).await;
        assert!(refused.contains("immutable"), "{text}: {refused}");
    }
    world.balanced().await;
}

/// A dead replica had granted more than it was leased: what the reaper cannot take from the account
/// the operator bears, and the metric says so.
async fn what_the_reaper_cannot_collect_is_counted(world: World) {
    let key = world.key(20, None).await;
    let slow = LedgerOptions {
        chores: std::time::Duration::from_secs(3600),
        ..quick()
    };
    let ledger = world.ledger(slow).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 12, 12).await.unwrap();
    flushed(&ledger).await;
    let facts = world.facts(&record);
    // Of a replica that was there long ago.
    let lost = world.literal(Uuid::from_u128(9));
    let ids = [
        facts.request_id.uuid(),
        facts.account_id.uuid(),
        facts.key_id.uuid(),
        facts.price_id.uuid(),
    ]
    .map(|id| world.literal(id));
    world
        .raw(&format!(
            "INSERT INTO replicas VALUES ({lost}, 'alive', 1, 0, 1, 'h', 1); \
             INSERT INTO checkpoints VALUES ({lost}, {}, {}, {}, 'chat.completions', 'm', 'acme', \
               {}, false, 30, 0, 0, 0, 0, 0, 0, 30, 0, 0, 1, \
               NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            ids[0], ids[1], ids[2], ids[3]
        ))
        .await;
    assert!(ledger.shutdown(std::time::Duration::from_secs(10)).await);
    let reaper = world.ledger(quick()).await;
    crate::world::eventually("the checkpoint is charged", async || {
        world.number("SELECT COUNT(*) FROM checkpoints").await == 0
    })
    .await;
    crate::world::eventually("the loss is counted", async || {
        reaper.stats().house_losses.get("usage_above_hold") == Some(&n(22))
    })
    .await;
    let audit = world.balanced().await;
    assert_eq!(audit.house_losses.get("usage_above_hold"), Some(&n(22)));
}

on_both!(
    what_is_closed_cannot_be_changed,
    what_the_reaper_cannot_collect_is_counted,
);
