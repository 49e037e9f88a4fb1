//! Databases of earlier versions: what lies in them is there after the upgrade, and works.

use std::path::Path;

use billing::PriceId;
use sqlx::{Connection as _, PgConnection, SqliteConnection, migrate::Migrator};
use store::{OpenOptions, Page, ResolvedAs, Store, StoreError, StoreUrl};
use uuid::Uuid;

use crate::world::{World, eventually, quick};

/// Makes a database as the version left it whose last migration has this number.
pub(crate) async fn as_left_by(last: u32, url: &str) {
    let kind = if url.starts_with("postgres") {
        "postgres"
    } else {
        "sqlite"
    };
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from.join(kind)).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let number: u32 = name.split('_').next().unwrap().parse().unwrap();
        if number <= last {
            std::fs::copy(file.path(), folder.path().join(name)).unwrap();
        }
    }
    let migrator = Migrator::new(folder.path()).await.unwrap();
    if kind == "postgres" {
        let mut connection = PgConnection::connect(url).await.unwrap();
        migrator.run(&mut connection).await.unwrap();
    } else {
        let url = format!("{url}?mode=rwc");
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        migrator.run(&mut connection).await.unwrap();
    }
}

async fn run(url: &str, rows: String) {
    let rows = sqlx::AssertSqlSafe(rows);
    if url.starts_with("postgres") {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    } else {
        let mut connection = SqliteConnection::connect(url).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    }
}

/// Upgrades, and leaves the leases of dead replicas where they are.
async fn upgrade(url: &str) -> Result<Store, store::StoreError> {
    let options = OpenOptions {
        leave_dead: true,
        ..OpenOptions::default()
    };
    Store::open(&StoreUrl::parse(url).unwrap(), options).await
}

const ACCOUNT: Uuid = Uuid::from_u128(1);
const KEY: Uuid = Uuid::from_u128(2);
const ASTRAY: Uuid = Uuid::from_u128(3);

/// Version 7 had leases that did not say whose they are. Those of a gateway that was killed before
/// the upgrade go back to their budgets after it, and a settlement that was put aside is found.
async fn leases_without_an_account_get_theirs(url: String, folder: Option<tempfile::TempDir>) {
    as_left_by(7, &url).await;
    let literal = |id: Uuid| match url.starts_with("postgres") {
        true => format!("'{}'", id.hyphenated()),
        false => format!("x'{}'", id.simple()),
    };
    let digest = match url.starts_with("postgres") {
        true => "'\\x00'",
        false => "x'00'",
    };
    let [account, key, astray] = [ACCOUNT, KEY, ASTRAY].map(literal);
    let [entry, replica, request] = [4, 5, 6].map(|id| literal(Uuid::from_u128(id)));
    let rows = format!(
        "INSERT INTO accounts VALUES ({account}, 'a', 0, false, '{{}}', 1, 1); \
         INSERT INTO keys (id, account_id, name, digest, prefix, limit_credits, metadata, \
           created_at, updated_at) VALUES ({key}, {account}, 'k', {digest}, 'p', 50, '{{}}', 1, 1); \
         INSERT INTO budgets VALUES ({account}, {account}, 'account', 70, 0, 30, 0, 0), \
           ({key}, {account}, 'key', 30, 0, 20, 0, 0); \
         INSERT INTO entries VALUES ({account}, {entry}, 'purchase', 100, {entry}, NULL, NULL, \
           NULL, NULL, 1); \
         INSERT INTO grants VALUES ({account}, {entry}, 'purchase', 100, 100, NULL, 1); \
         INSERT INTO replicas VALUES ({replica}, 'alive', 1, 0, 1000000, 'h', 1); \
         INSERT INTO leases VALUES ({account}, {replica}, 30, 5, 1), ({key}, {replica}, 20, 0, 1), \
           ({astray}, {replica}, 0, 0, 1); \
         INSERT INTO dead_settlements VALUES ({request}, {account}, 'p', 's', 1)"
    );
    run(&url, rows).await;
    let store = upgrade(&url).await.unwrap();
    let world = World {
        url,
        store,
        price: PriceId::from_uuid(Uuid::nil()),
        _folder: folder,
    };
    let leased =
        format!("SELECT CAST(SUM(amount) AS bigint) FROM leases WHERE account_id = {account}");
    assert_eq!(world.number(&leased).await, 50);
    let budgets = async || (world.budget(ACCOUNT).await, world.budget(KEY).await);
    assert_eq!(budgets().await, ((70, 30, 0), (30, 20, 0)));
    // A lease of a budget that is not there was not lost on the way.
    let audit = world.store.audit().await.unwrap();
    let orphans = audit
        .checks
        .iter()
        .find(|c| c.name == "no_orphans")
        .unwrap();
    let astray_there = orphans
        .first_broken
        .as_ref()
        .is_some_and(|row| row.note.as_deref() == Some("leases"));
    assert!(astray_there, "{orphans:?}");
    world
        .raw(&format!("DELETE FROM leases WHERE budget_id = {astray}"))
        .await;
    let _ledger = world.ledger(quick()).await;
    eventually("the leases go back", async || {
        budgets().await == ((100, 0, 0), (50, 0, 0))
    })
    .await;
    let dead = world.store.dead_settlements(false, Page::default());
    let dead = dead.await.unwrap().data.remove(0);
    let resolved = world
        .store
        .resolve_settlement(dead.request_id, ResolvedAs::Drop, "n")
        .await
        .unwrap();
    assert_eq!(resolved.account_id.uuid(), ACCOUNT);
    world.balanced().await;
    let guarded = crate::admin::refused(&world, "DELETE FROM dead_settlements").await;
    assert!(guarded.contains("immutable"), "{guarded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_version_7_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/tollway.db", folder.path().display());
    leases_without_an_account_get_theirs(url, Some(folder)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_version_7_on_postgres() {
    let database = tokio::task::spawn_blocking(throwaway_postgres::shared)
        .await
        .unwrap()
        .unwrap();
    leases_without_an_account_get_theirs(database.url().to_owned(), None).await;
}

/// What works beside a running gateway leaves a database alone whose tables another program made.
async fn tables_of_another_version_are_not_touched(url: &str) {
    let target = StoreUrl::parse(url).unwrap();
    let beside = async || {
        let reading = Store::open_read_only(&target, OpenOptions::default()).await;
        let writing = Store::open_beside(&target, OpenOptions::default()).await;
        [reading, writing].map(Result::err)
    };
    as_left_by(9, url).await;
    let pepper = if url.starts_with("postgres") {
        "decode(repeat('00', 32), 'hex')"
    } else {
        "zeroblob(32)"
    };
    let instance = format!("INSERT INTO instance (id, pepper, created_at) VALUES (1, {pepper}, 1)");
    run(url, instance).await;
    for refused in beside().await {
        let older =
            matches!(refused, Some(StoreError::OtherVersion { found: 9, wanted }) if wanted > 9);
        assert!(older, "{refused:?}");
    }
    upgrade(url).await.unwrap();
    for opened in beside().await {
        assert!(opened.is_none(), "{opened:?}");
    }
    run(
        url,
        "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 9".into(),
    )
    .await;
    for refused in beside().await {
        let newer = matches!(refused, Some(StoreError::OtherVersion { found: 9999, .. }));
        assert!(newer, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_version_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/tollway.db", folder.path().display());
    tables_of_another_version_are_not_touched(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_version_on_postgres() {
    let database = tokio::task::spawn_blocking(throwaway_postgres::shared)
        .await
        .unwrap()
        .unwrap();
    tables_of_another_version_are_not_touched(database.url()).await;
}

/// A gateway of version 7 could not write what it has in memory any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_gateway_of_version_7_is_to_be_stopped_first() {
    let database = tokio::task::spawn_blocking(throwaway_postgres::shared)
        .await
        .unwrap()
        .unwrap();
    let url = database.url();
    as_left_by(7, url).await;
    let now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let replica = Uuid::from_u128(5);
    let hour = 3_600_000_000_u64;
    let living = format!(
        "INSERT INTO replicas VALUES ('{replica}', 'alive', {now}, 1, {hour}, 'the-host', {now})"
    );
    run(url, living).await;
    let refused = upgrade(url).await.unwrap_err().to_string();
    assert!(refused.contains("the-host"), "{refused}");
    let dead = format!("UPDATE replicas SET heartbeat_at = heartbeat_at - {hour}");
    run(url, dead).await;
    upgrade(url).await.unwrap();
}
