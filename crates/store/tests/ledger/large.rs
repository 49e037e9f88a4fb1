//! A large month: how long its proof, its export and its closing take. `TOLLWAY_CLOSING_ROWS` says how large.

use std::time::{Duration, Instant};

use billing::{Price, Rates};
use sqlx::{Connection as _, PgConnection};
use store::Month;

use crate::{
    closing::months_ago,
    world::{World, n, on_both},
};

const ACCOUNTS: i64 = 100;
/// Small enough for every run; a figure wants a million.
const ROWS: i64 = 5_000;

fn rows() -> i64 {
    let said = std::env::var("TOLLWAY_CLOSING_ROWS");
    let rows: i64 = said.map_or(ROWS, |text| text.parse().unwrap());
    rows / ACCOUNTS * ACCOUNTS
}

/// Accounts with credit, and `rows` charges of 10 nano-credits in `month`.
async fn fill(world: &World, month: Month, rows: i64) {
    let postgres = world.is_postgres();
    let id = |number: &str| {
        if postgres {
            format!("lpad(to_hex({number}), 32, '0')::uuid")
        } else {
            format!("unhex(printf('%032x', {number}))")
        }
    };
    let price = Price::new(Rates::plain(n(0), n(1_000_000)), Vec::new()).unwrap();
    let price = world.literal(price.id().unwrap().uuid());
    let start = month.start().unwrap().as_millisecond();
    let request = if postgres {
        format!("(lpad(to_hex({start} + g), 12, '0') || '70008' || lpad(to_hex(g), 15, '0'))::uuid")
    } else {
        format!("unhex(printf('%012x', {start} + g) || '70008' || printf('%015x', g))")
    };
    let series = |count: i64| {
        if postgres {
            format!(
                "(SELECT CAST(g AS bigint) AS g FROM generate_series(0, {count} - 1) AS g) AS s"
            )
        } else {
            format!(
                "(WITH RECURSIVE c(g) AS (SELECT 0 UNION ALL SELECT g + 1 FROM c \
                 WHERE g < {count} - 1) SELECT g FROM c) AS s"
            )
        }
    };
    let (account, key, entry) = (id("1000 + g"), id("2000 + g"), id("3000 + g"));
    let digest = if postgres {
        "to_hex(g)::bytea"
    } else {
        "CAST(g AS blob)"
    };
    let spent = 10 * rows / ACCOUNTS;
    let has = spent + 50;
    let accounts = series(ACCOUNTS);
    world
        .raw(&format!(
            "INSERT INTO accounts SELECT {account}, 'a', 0, false, '{{}}', 1, 1 FROM {accounts}; \
             INSERT INTO keys SELECT {key}, {account}, 'k', {digest}, 'p', NULL, NULL, NULL, NULL, \
               '{{}}', 1, 1, NULL, NULL FROM {accounts}; \
             INSERT INTO budgets SELECT {account}, {account}, 'account', 50, 0, 0, {spent}, 0 \
               FROM {accounts}; \
             INSERT INTO budgets SELECT {key}, {account}, 'key', -{spent}, 0, 0, {spent}, 0 \
               FROM {accounts}; \
             INSERT INTO entries SELECT {account}, {entry}, 'purchase', {has}, {entry}, NULL, \
               NULL, NULL, NULL, 1 FROM {accounts}; \
             INSERT INTO grants SELECT {account}, {entry}, 'purchase', {has}, 50, NULL, 1 \
               FROM {accounts}"
        ))
        .await;
    if postgres {
        world
            .raw(&format!("SELECT make_charges_month('{month}-01')"))
            .await;
    }
    let (account, key) = (
        id(&format!("1000 + g % {ACCOUNTS}")),
        id(&format!("2000 + g % {ACCOUNTS}")),
    );
    world
        .raw(&format!(
            "INSERT INTO charges SELECT {account}, {request}, {key}, 'chat.completions', 'm', \
             'acme', {price}, false, 'completed', 10, 10, 0, 'reported', 0, 0, 0, 0, 0, 0, 10, 0, \
             0, '{{\"completion_tokens\":10}}', 5, 10, false, ({start} + g) * 1000, \
             ({start} + g) * 1000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM {}",
            series(rows)
        ))
        .await;
}

async fn a_large_month_is_proved_and_closed(world: World) {
    let (month, rows) = (months_ago(4), rows());
    fill(&world, month, rows).await;
    let timed = |what: &str, since: Instant| {
        let took = since.elapsed();
        println!("{what} of {rows} charges: {:.2} s", took.as_secs_f64());
    };
    let since = Instant::now();
    world.balanced().await;
    timed("audit", since);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.jsonl");
    let since = Instant::now();
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let export = world.store.export_month(month, &mut file).await.unwrap();
    timed("export", since);
    assert_eq!(i64::try_from(export.sums.charges).unwrap(), rows);
    assert_eq!(export.sums.charged, n(10 * rows));
    let mut file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let since = Instant::now();
    let after = Duration::from_secs(35 * 24 * 3600);
    let closed = world
        .store
        .close_month(month, &mut file, after)
        .await
        .unwrap();
    timed("closing", since);
    assert_eq!(i64::try_from(closed.entries).unwrap(), ACCOUNTS);
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 0);
    let since = Instant::now();
    world.balanced().await;
    timed("audit after the closing", since);
}

/// Rows come into partitions about as fast as into one plain table of the same shape.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_cost_little() {
    let world = World::postgres().await;
    let rows = rows();
    let months = [months_ago(1), months_ago(0)];
    world
        .raw(&format!(
            "SELECT make_charges_month('{}-01'); \
             CREATE TABLE charges_plain (LIKE charges INCLUDING ALL)",
            months[0]
        ))
        .await;
    let mut connection = PgConnection::connect(&world.url).await.unwrap();
    let mut took = [Duration::ZERO; 2];
    let start = months[1].start().unwrap().as_millisecond();
    let batches = rows / 500;
    for batch in 0..batches {
        // Turn and turn about, so that whatever else the machine does hits both.
        for (table, took) in ["charges", "charges_plain"].into_iter().zip(&mut took) {
            let text = format!(
                "INSERT INTO {table} SELECT md5((g % 100)::text)::uuid, \
                 (lpad(to_hex({start} + {batch}), 12, '0') || '70008' \
                   || lpad(to_hex({batch} * 500 + g), 15, '0'))::uuid, md5((g % 100)::text)::uuid, \
                 'chat.completions', 'm', 'acme', md5('p')::uuid, false, 'completed', 10, 10, 0, \
                 'reported', 0, 0, 0, 0, 0, 0, 10, 0, 0, NULL, 5, 10, false, 1, 1 \
                 FROM generate_series(1, 500) AS g"
            );
            let since = Instant::now();
            sqlx::raw_sql(sqlx::AssertSqlSafe(text))
                .execute(&mut connection)
                .await
                .unwrap();
            *took += since.elapsed();
        }
    }
    let inserted = 500.0 * f64::from(i32::try_from(batches).unwrap());
    let [partitioned, plain] = took.map(|took| inserted / took.as_secs_f64());
    println!("rows/s into partitions {partitioned:.0}, into one table {plain:.0}");
    for table in ["charges", "charges_plain"] {
        let count = format!("SELECT COUNT(*) FROM {table}");
        assert_eq!(world.number(&count).await, batches * 500);
    }
    let rest = "SELECT COUNT(*) FROM charges_other";
    assert_eq!(world.number(rest).await, 0);
}

on_both!(a_large_month_is_proved_and_closed);
