//! The audit finds every way in which the books can be broken, and names the row and the figures.

use jiff::ToSpan as _;
use sqlx::{Connection as _, SqliteConnection};
use store::Month;

use crate::{
    closing::{close, facts_at, months_ago, settle},
    world::{World, flushed, on_both, quick, settlement},
};

/// A way to break the books: the check that finds it, what its row is called and its two
/// figures, and the statements that break and mend.
struct Way {
    check: &'static str,
    row: String,
    breaks: String,
    mends: String,
}

/// A world with charges of this month and of one that is closed, all of them proved.
struct Books {
    world: World,
    account: uuid::Uuid,
    key: uuid::Uuid,
    request: uuid::Uuid,
    late: uuid::Uuid,
    /// The entry that added the credits, and the replica that served.
    grant: String,
    replica: String,
    closed: Month,
}

async fn good_books(world: World) -> Books {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1000, Some(500)).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let replica = ledger.escrow().replica().to_string();
    let entries = world.store.entries(key.account.id, store::Page::default());
    let grant = entries.await.unwrap().data[0].id.clone();
    world.spend(&ledger, &record, 20, 10).await.unwrap();
    world.spend(&ledger, &record, 20, 10).await.unwrap();
    let closed = months_ago(4);
    let old = facts_at(&world, &record, closed.start().unwrap() + 36.hours());
    settle(&ledger, &old, 7).await;
    close(&world, closed).await;
    // One of the closed month comes again with another id and is put aside, then dropped.
    let late = facts_at(&world, &record, closed.start().unwrap() + 37.hours());
    let permit = ledger.reserve().unwrap();
    permit.send(settlement(&late, ledger.escrow().replica(), 0, 3));
    flushed(&ledger).await;
    world
        .store
        .resolve_settlement(late.request_id, store::ResolvedAs::Drop, "charged before")
        .await
        .unwrap();
    assert!(ledger.shutdown(std::time::Duration::from_secs(10)).await);
    let request = world
        .store
        .charges(&store::ChargeFilter::default(), store::Page::default())
        .await
        .unwrap()
        .data
        .last()
        .unwrap()
        .id;
    Books {
        account: key.account.id.uuid(),
        key: key.key.id.uuid(),
        request: request.uuid(),
        late: late.request_id.uuid(),
        grant,
        replica,
        closed,
        world,
    }
}

async fn broken_books_are_found(world: World) {
    let books = good_books(world).await;
    let world = &books.world;
    let audit = world.balanced().await;
    assert!(audit.checks.iter().all(|c| c.first_broken.is_none()));
    assert!(
        audit
            .checks
            .iter()
            .any(|c| c.name == "costs" && c.rows_checked == 2)
    );
    world.raw(UNCHECK[usize::from(world.is_postgres())]).await;
    for way in ways_to_break_accounts(&books)
        .into_iter()
        .chain(ways_to_break_charges(&books))
        .chain(ways_to_break_closings(&books))
    {
        unguarded(world, &way.breaks).await;
        let audit = world.store.audit().await.unwrap();
        assert!(!audit.balanced, "{}: {}", way.check, way.breaks);
        let check = audit.checks.iter().find(|c| c.name == way.check).unwrap();
        let row = check
            .first_broken
            .as_ref()
            .unwrap_or_else(|| panic!("{}: {:#?}", way.breaks, audit.checks));
        assert_eq!(row.to_string(), way.row, "{}", way.breaks);
        if way.check == "balance" {
            assert_eq!(audit.imbalance.nanos(), 1);
        }
        unguarded(world, &way.mends).await;
        world.balanced().await;
    }
}

/// `row` as the audit writes it.
fn way(check: &'static str, row: String, breaks: String, mends: String) -> Way {
    Way {
        check,
        row,
        breaks,
        mends,
    }
}

/// Breaks by adding to a column and mends by taking it away.
fn off_by_one(check: &'static str, row: String, table: &str, column: &str, condition: &str) -> Way {
    let change =
        |by: &str| format!("UPDATE {table} SET {column} = {column} {by} WHERE {condition}");
    way(check, row, change("+ 1"), change("- 1"))
}

fn ways_to_break_accounts(books: &Books) -> Vec<Way> {
    let (a, k) = (books.account.simple(), books.key.simple());
    let account = books.world.literal(books.account);
    let key = books.world.literal(books.key);
    let other = books.world.literal(OTHER);
    let replica = "(SELECT id FROM replicas LIMIT 1)";
    let of_account = format!("id = {account}");
    vec![
        off_by_one(
            "balance",
            format!("acct_{a}: 0.000000974, should be 0.000000973"),
            "budgets",
            "available",
            &of_account,
        ),
        off_by_one(
            "balance",
            format!("acct_{a}: 0.000000973, should be 0.000000974"),
            "entries",
            "amount",
            "kind = 'purchase'",
        ),
        way(
            "leases",
            format!("acct_{a}: 0.000000001, should be 0"),
            format!("UPDATE budgets SET leased = 1, available = available - 1 WHERE {of_account}"),
            format!("UPDATE budgets SET leased = 0, available = available + 1 WHERE {of_account}"),
        ),
        way(
            "grants",
            format!("acct_{a}: 0.000000972, should be 0.000000973"),
            "UPDATE grants SET remaining = remaining - 1".into(),
            "UPDATE grants SET remaining = remaining + 1".into(),
        ),
        off_by_one(
            "spent",
            format!("acct_{a}: 0.000000028, should be 0.000000027"),
            "budgets",
            "spent",
            &of_account,
        ),
        way(
            "spent",
            format!("acct_{a} key_{k}: 0.000000028, should be 0.000000027"),
            format!("UPDATE budgets SET spent = 28, available = available - 1 WHERE id = {key}"),
            format!("UPDATE budgets SET spent = 27, available = available + 1 WHERE id = {key}"),
        ),
        way(
            "floors",
            format!("acct_{a}: -0.000000005, should be 0"),
            format!("UPDATE budgets SET floor = -5 WHERE {of_account}"),
            format!("UPDATE budgets SET floor = 0 WHERE {of_account}"),
        ),
        off_by_one(
            "key_limits",
            format!("acct_{a} key_{k}: 0.0000005, should be 0.000000501"),
            "keys",
            "limit_credits",
            &format!("id = {key}"),
        ),
        way(
            "no_dead_leases",
            format!("budget_{a} {}: 0.000000001, should be 0", books.replica),
            format!("INSERT INTO leases VALUES ({account}, {account}, {replica}, 1, 0, 1)"),
            "DELETE FROM leases".into(),
        ),
        way(
            "no_orphans",
            format!("acct_{} leases: 1, should be 0", OTHER.simple()),
            format!("INSERT INTO leases VALUES ({other}, {other}, {replica}, 0, 0, 1)"),
            "DELETE FROM leases".into(),
        ),
        way(
            "guards",
            if books.world.is_postgres() {
                "entries immutable: 0, should be 1".into()
            } else {
                "entries_no_update: 0, should be 1".into()
            },
            UNGUARD[usize::from(books.world.is_postgres())].into(),
            GUARD[usize::from(books.world.is_postgres())].into(),
        ),
    ]
}

fn ways_to_break_charges(books: &Books) -> Vec<Way> {
    let world = &books.world;
    let (a, r) = (books.account.simple(), books.request.simple());
    let account = world.literal(books.account);
    let key = world.literal(books.key);
    let other = world.literal(OTHER);
    let one = format!("id = {}", world.literal(books.request));
    let grant = if world.is_postgres() {
        "md5('x')::uuid"
    } else {
        "randomblob(16)"
    };
    let mut ways = vec![
        off_by_one(
            "charges_split",
            format!("acct_{a} req_{r}: 0.000000011, should be 0.00000001"),
            "charges",
            "house_loss",
            &one,
        ),
        off_by_one(
            "costs",
            format!("acct_{a} req_{r}: 0.00000001, should be 0.000000011"),
            "charges",
            "completion",
            &one,
        ),
        way(
            "costs",
            format!(
                "acct_{a} req_{r} price version {} is not kept: 0.00000001, should be unknown",
                OTHER.simple()
            ),
            format!("UPDATE charges SET price_id = {other} WHERE {one}"),
            "UPDATE charges SET price_id = (SELECT id FROM prices)".into(),
        ),
        way(
            "one_charge_a_request",
            format!("req_{r}: 2, should be 1"),
            format!(
                "INSERT INTO charges (account_id, {REST}) SELECT {other}, {REST} FROM charges WHERE {one}"
            ),
            format!("DELETE FROM charges WHERE account_id = {other}"),
        ),
        way(
            "keys_of_accounts",
            format!("acct_{a} key_{} charges: 1, should be 0", OTHER.simple()),
            format!("UPDATE charges SET key_id = {other} WHERE {one}"),
            format!("UPDATE charges SET key_id = {key} WHERE {one}"),
        ),
        way(
            "late_losses_have_charges",
            format!("acct_{a} req_{}: 0.000000001, should be 0", OTHER.simple()),
            format!("INSERT INTO house_losses VALUES ({account}, {other}, 'x', 1, 1)"),
            "DELETE FROM house_losses".into(),
        ),
        way(
            "grants_have_entries",
            format!("acct_{a} {}: 0.000001005, should be 0.000001", books.grant),
            "UPDATE grants SET amount = amount + 5".into(),
            "UPDATE grants SET amount = amount - 5".into(),
        ),
        way(
            "no_lost_requests",
            format!("acct_{a} req_{}: 0.000000003, should be 0", OTHER.simple()),
            format!(
                "INSERT INTO checkpoints SELECT {other}, {other}, account_id, key_id, endpoint, \
                 model, provider, price_id, stream, 3, prompt, cached_prompt, cache_write_5m, \
                 cache_write_1h, audio_prompt, image_prompt, completion, reasoning, \
                 audio_completion, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
                 FROM charges WHERE {one}"
            ),
            "DELETE FROM checkpoints".into(),
        ),
        way(
            "one_entry_a_payment",
            format!("acct_{a} evt_1: 2, should be 1"),
            format!(
                "INSERT INTO entries (account_id, id, kind, amount, idempotency_key, created_at) \
                 SELECT account_id, {grant}, kind, amount, 'evt_1', 1 FROM entries \
                 WHERE kind = 'purchase'; UPDATE entries SET idempotency_key = 'evt_1' \
                 WHERE kind = 'purchase'"
            ),
            "DELETE FROM entries WHERE created_at = 1; \
             UPDATE entries SET idempotency_key = NULL"
                .into(),
        ),
    ];
    if world.is_postgres() {
        // A month between two that have partitions, without one of its own.
        ways.push(way(
            "partitions",
            format!("acct_{a} req_{r} in charges_other: 1, should be 0"),
            partition_gap(books),
            "SELECT make_charges_month(date_trunc('month', now() AT TIME ZONE 'UTC')::date)".into(),
        ));
    }
    ways
}

/// Takes this month's partition away, its rows into the rest, with one long ago still there.
fn partition_gap(books: &Books) -> String {
    let this = Month::of(jiff::Timestamp::now())
        .to_string()
        .replace('-', "_");
    let long_ago = months_ago(6);
    let _ = books;
    format!(
        "SELECT make_charges_month('{long_ago}-01'); \
         ALTER TABLE charges DETACH PARTITION charges_{this}; \
         INSERT INTO charges SELECT * FROM charges_{this}; DROP TABLE charges_{this}"
    )
}

fn ways_to_break_closings(books: &Books) -> Vec<Way> {
    let world = &books.world;
    let (a, m) = (books.account.simple(), books.closed);
    let account = world.literal(books.account);
    let late = world.literal(books.late);
    let (l, one) = (
        books.late.simple(),
        format!("id = {}", world.literal(books.request)),
    );
    let other = world.literal(OTHER);
    vec![
        way(
            "closings",
            format!("{m} charged: 0.000000008, should be 0.000000007"),
            "UPDATE closings SET charged = charged + 1, cost = cost + 1".into(),
            "UPDATE closings SET charged = charged - 1, cost = cost - 1".into(),
        ),
        way(
            "closings",
            format!("{m} house loss: 0.000000001, should be 0"),
            "UPDATE closings SET house_loss = house_loss + 1, cost = cost + 1".into(),
            "UPDATE closings SET house_loss = house_loss - 1, cost = cost - 1".into(),
        ),
        off_by_one(
            "closings_counted",
            format!("{m}: 2, should be 1"),
            "closings",
            "requests",
            "true",
        ),
        way(
            "closing_entries",
            format!("acct_{a} {m}: 0.000000006, should be 0.000000007"),
            "UPDATE entries SET amount = amount + 1 WHERE kind = 'closing'".into(),
            "UPDATE entries SET amount = amount - 1 WHERE kind = 'closing'".into(),
        ),
        way(
            "closed_months_are_empty",
            format!("acct_{a} req_{l} {m}: 0.00000001, should be 0"),
            format!(
                "INSERT INTO charges (account_id, id, {}) SELECT account_id, {late}, {} FROM charges WHERE {one}",
                REST.trim_start_matches("id, "),
                REST.trim_start_matches("id, ")
            ),
            format!("DELETE FROM charges WHERE id = {late}"),
        ),
        way(
            "no_dead_settlements",
            format!("acct_{a} req_{} p: 1, should be 0", OTHER.simple()),
            format!("INSERT INTO dead_settlements VALUES ({other}, {account}, 'p', 's', 1)"),
            "DELETE FROM dead_settlements WHERE problem = 'p'".into(),
        ),
        way(
            "resolutions",
            format!("acct_{a} req_{l} charge: 0, should be 0.000000003"),
            "UPDATE resolutions SET resolved_as = 'charge', charged = 3; \
             UPDATE closed_months SET state = 'closing'"
                .into(),
            "UPDATE resolutions SET resolved_as = 'drop', charged = 0; \
             UPDATE closed_months SET state = 'closed'"
                .into(),
        ),
        way(
            "resolutions",
            format!("acct_{a} req_{} drop: 0, should be 0", OTHER.simple()),
            format!("INSERT INTO resolutions VALUES ({account}, {other}, 'drop', 0, 0, 'n', 1)"),
            "DELETE FROM resolutions WHERE note = 'n'".into(),
        ),
    ]
}

/// The columns of a charge beside its account.
const REST: &str = "id, key_id, endpoint, model, provider, price_id, stream, ended, cost, charged, \
    house_loss, source, prompt, cached_prompt, cache_write_5m, cache_write_1h, audio_prompt, \
    image_prompt, completion, reasoning, audio_completion, raw_usage, first_token_us, \
    duration_us, late, created_at, settled_at";

/// Nobody's id.
const OTHER: uuid::Uuid = uuid::Uuid::from_u128(77);

/// Runs SQL as somebody would who takes the triggers away first and puts them back after.
async fn unguarded(world: &World, text: &str) {
    if world.is_postgres() {
        world
            .raw(&format!("SET session_replication_role = replica; {text}"))
            .await;
        return;
    }
    let mut connection = SqliteConnection::connect(&world.url).await.unwrap();
    let triggers: Vec<(String, String)> =
        sqlx::query_as("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let drops: String = triggers
        .iter()
        .map(|(name, _)| format!("DROP TRIGGER {name}; "))
        .collect();
    // What the text itself drops or makes is its own affair.
    let guarded = text.contains("TRIGGER");
    let creates: String = triggers.iter().map(|(_, sql)| format!("{sql}; ")).collect();
    let all = if guarded {
        text.to_owned()
    } else {
        format!("BEGIN; {drops} {text}; {creates} COMMIT")
    };
    sqlx::raw_sql(sqlx::AssertSqlSafe(all))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Takes away the constraints that keep the books from being broken.
const UNCHECK: [&str; 2] = [
    "PRAGMA writable_schema = ON; \
     UPDATE sqlite_schema SET sql = replace(replace(sql, ',
    CHECK (charged + house_loss = cost)', ''), ',
    UNIQUE (account_id, idempotency_key)', '') WHERE name IN ('charges', 'entries'); \
     DELETE FROM sqlite_schema WHERE name = 'sqlite_autoindex_entries_2'; \
     PRAGMA writable_schema = OFF;",
    "ALTER TABLE charges DROP CONSTRAINT charges_check; \
     ALTER TABLE entries DROP CONSTRAINT entries_account_id_idempotency_key_key;",
];

const UNGUARD: [&str; 2] = [
    "DROP TRIGGER entries_no_update",
    "ALTER TABLE entries DISABLE TRIGGER immutable",
];
const GUARD: [&str; 2] = [
    "CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries \
     BEGIN SELECT RAISE(ABORT, 'rows of entries are immutable'); END",
    "ALTER TABLE entries ENABLE TRIGGER immutable",
];

on_both!(broken_books_are_found);
