//! Fills a database with accounts and charges by set statements, so that the audit finds it balanced.

use std::time::SystemTime;

use uuid::Uuid;

use crate::{error::BenchError, plan::Kind, raw::Raw};

/// What every account was given, in nano-credits: enough for any run.
const CREDIT: i64 = 1_000_000_000_000_000;
/// What a stored charge cost: so many tokens of output at a nano-credit each.
const STORED_COST: i64 = 10;
/// Stored charges lie in this time, up to now.
const STORED_MS: u64 = 20 * 24 * 3600 * 1000;
/// Rows of one transaction.
const AT_A_TIME: u64 = 500_000;

/// The first half of the ids of one sort; the second half counts.
#[derive(Clone, Copy)]
enum Sort {
    Account,
    Key,
    Credit,
    StoredCredit,
}

impl Sort {
    const fn prefix(self) -> u64 {
        match self {
            Self::Account => 0x0190_0000_0000_7a00,
            Self::Key => 0x0190_0000_0000_7b00,
            Self::Credit => 0x0190_0000_0000_7c00,
            Self::StoredCredit => 0x0190_0000_0000_7d00,
        }
    }

    fn id(self, number: u64) -> Uuid {
        Uuid::from_u64_pair(self.prefix(), number)
    }

    /// The id in SQL, of the number that `expression` is.
    fn sql(self, kind: Kind, expression: &str) -> String {
        let prefix = self.prefix();
        match kind {
            Kind::Sqlite => format!("unhex(printf('{prefix:016x}%016x', {expression}))"),
            Kind::Postgres => {
                format!("('{prefix:016x}' || lpad(to_hex(({expression})::bigint), 16, '0'))::uuid")
            }
        }
    }

    /// The id in SQL with the same number as the account in `column`.
    fn sql_of_account(self, kind: Kind, column: &str) -> String {
        let prefix = self.prefix();
        match kind {
            Kind::Sqlite => format!("unhex('{prefix:016x}' || substr(hex({column}), 17))"),
            Kind::Postgres => {
                format!("('{prefix:016x}' || right(replace({column}::text, '-', ''), 16))::uuid")
            }
        }
    }
}

/// The id of an account, counted from zero.
pub(crate) fn account(number: u64) -> Uuid {
    Sort::Account.id(number)
}

/// The id of the key of an account.
pub(crate) fn key(number: u64) -> Uuid {
    Sort::Key.id(number)
}

/// The numbers from `from` up to `to` as a table `s (i)`.
fn numbers(kind: Kind, from: u64, to: u64) -> String {
    match kind {
        Kind::Sqlite => format!(
            "WITH RECURSIVE s(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM s WHERE i + 1 < {to})"
        ),
        Kind::Postgres => {
            format!("WITH s(i) AS (SELECT generate_series({from}::bigint, {to}::bigint - 1))")
        }
    }
}

/// Adds so many rich accounts, each with a key.
pub(crate) async fn add_accounts(raw: &mut Raw, count: u64) -> Result<(), BenchError> {
    let kind = raw.kind();
    let numbers = numbers(kind, 0, count);
    let (account, key) = (Sort::Account.sql(kind, "i"), Sort::Key.sql(kind, "i"));
    let credit = Sort::Credit.sql(kind, "i");
    let digest = match kind {
        Kind::Sqlite => "unhex(printf('%064x', i))",
        Kind::Postgres => "decode(lpad(to_hex(i), 64, '0'), 'hex')",
    };
    let no = match kind {
        Kind::Sqlite => "0",
        Kind::Postgres => "false",
    };
    raw.run("BEGIN").await?;
    for text in [
        format!(
            "INSERT INTO accounts (id, name, overdraft, disabled, metadata, created_at, updated_at) \
             {numbers} SELECT {account}, 'bench', 0, {no}, '{{}}', 0, 0 FROM s"
        ),
        format!(
            "INSERT INTO keys (id, account_id, name, digest, prefix, metadata, created_at, updated_at) \
             {numbers} SELECT {key}, {account}, 'bench', {digest}, 'sk-tw-', '{{}}', 0, 0 FROM s"
        ),
        format!(
            "INSERT INTO budgets (id, account_id, kind, available, floor, leased, spent, debt) \
             {numbers} SELECT {account}, {account}, 'account', {CREDIT}, 0, 0, 0, 0 FROM s"
        ),
        format!(
            "INSERT INTO budgets (id, account_id, kind, available, floor, leased, spent, debt) \
             {numbers} SELECT {key}, {account}, 'key', 0, 0, 0, 0, 0 FROM s"
        ),
        format!(
            "INSERT INTO entries (account_id, id, kind, amount, grant_id, created_at) \
             {numbers} SELECT {account}, {credit}, 'purchase', {CREDIT}, {credit}, 0 FROM s"
        ),
        format!(
            "INSERT INTO grants (account_id, id, kind, amount, remaining, created_at) \
             {numbers} SELECT {account}, {credit}, 'purchase', {CREDIT}, {CREDIT}, 0 FROM s"
        ),
    ] {
        raw.run(&text).await?;
    }
    raw.run("COMMIT").await
}

/// Has Postgres make so many segments of its log, and keep them to be used again.
pub(crate) async fn make_log(raw: &mut Raw, segments: u32) -> Result<(), BenchError> {
    match raw.kind() {
        Kind::Sqlite => return Ok(()),
        Kind::Postgres => {}
    }
    for _ in 0..segments {
        raw.run("SELECT pg_logical_emit_message(true, 'bench', ''); SELECT pg_switch_wal()")
            .await?;
    }
    raw.run("CHECKPOINT").await
}

/// Adds about so many charges of the last days: a quarter on the first account, a quarter over
/// the first thousand, the rest over all.
pub(crate) async fn add_charges(
    raw: &mut Raw,
    count: u64,
    accounts: u64,
    price: Uuid,
) -> Result<(), BenchError> {
    let kind = raw.kind();
    if count == 0 {
        return Ok(());
    }
    let indexes = match kind {
        // Filling them row by row from a small cache takes ten times as long.
        Kind::Sqlite => drop_indexes(raw).await?,
        Kind::Postgres => Vec::new(),
    };
    let mut before = 0;
    for (share, over) in [
        (count / 4, 1),
        (count / 4, accounts.min(1000)),
        (count - count / 4 * 2, accounts),
    ] {
        let each = share.div_ceil(over);
        let rows = each * over;
        let mut from = 0;
        while from < rows {
            let to = rows.min(from + AT_A_TIME);
            let piece = Piece {
                from,
                to,
                each,
                over,
                before,
            };
            raw.run(&charges(kind, count, &piece, price)).await?;
            from = to;
        }
        before += rows;
    }
    for index in indexes {
        raw.run(&index).await?;
    }
    balance(raw).await
}

/// A piece of the stored charges: rows `from` to `to` of `each` charges on `over` accounts,
/// after `before` others.
struct Piece {
    from: u64,
    to: u64,
    each: u64,
    over: u64,
    before: u64,
}

fn charges(kind: Kind, count: u64, piece: &Piece, price: Uuid) -> String {
    let Piece {
        from,
        to,
        each,
        over,
        before,
    } = piece;
    let now_ms = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let start_ms = now_ms.saturating_sub(u128::from(STORED_MS));
    let step_ms = STORED_MS / (count * 2).max(1);
    // Account after account, which fills the indexes from left to right; the times of one account
    // are spread over all days.
    let number = format!("({before} + (i % {each}) * {over} + i / {each})");
    let ms = format!("({start_ms} + {number} * {step_ms})");
    let (account, key) = (
        Sort::Account.sql(kind, &format!("i / {each}")),
        Sort::Key.sql(kind, &format!("i / {each}")),
    );
    let (id, price, yes, no) = match kind {
        Kind::Sqlite => (
            format!("unhex(printf('%012x70008%015x', {ms}, {number}))"),
            format!("x'{}'", price.simple()),
            "1",
            "0",
        ),
        Kind::Postgres => (
            format!(
                "(lpad(to_hex({ms}::bigint), 12, '0') || '70008' || lpad(to_hex({number}), 15, '0'))::uuid"
            ),
            format!("'{price}'::uuid"),
            "true",
            "false",
        ),
    };
    let numbers = numbers(kind, *from, *to);
    format!(
        "INSERT INTO charges (account_id, id, key_id, endpoint, model, provider, price_id, stream, \
         ended, cost, charged, house_loss, source, prompt, cached_prompt, cache_write_5m, \
         cache_write_1h, audio_prompt, image_prompt, completion, reasoning, audio_completion, \
         raw_usage, first_token_us, duration_us, late, created_at, settled_at) \
         {numbers} SELECT {account}, {id}, {key}, 'chat.completions', 'bench', 'bench', {price}, \
         {yes}, 'completed', {STORED_COST}, {STORED_COST}, 0, 'reported', 0, 0, 0, 0, 0, 0, \
         {STORED_COST}, 0, 0, NULL, 1000, 2000, {no}, {ms} * 1000, {ms} * 1000 FROM s"
    )
}

async fn drop_indexes(raw: &mut Raw) -> Result<Vec<String>, BenchError> {
    const OWN: &str = "type = 'index' AND tbl_name = 'charges' AND sql IS NOT NULL ORDER BY name";
    raw.run("PRAGMA cache_size = -1000000; PRAGMA synchronous = OFF")
        .await?;
    let names = format!("SELECT name FROM sqlite_master WHERE {OWN}");
    let texts = format!("SELECT sql FROM sqlite_master WHERE {OWN}");
    let texts = raw.texts(&texts).await?;
    for name in raw.texts(&names).await? {
        raw.run(&format!("DROP INDEX {name}")).await?;
    }
    Ok(texts)
}

/// Pays for the stored charges, so that what is left of every account is what it was given.
async fn balance(raw: &mut Raw) -> Result<(), BenchError> {
    let kind = raw.kind();
    let id = Sort::StoredCredit.sql_of_account(kind, "account_id");
    let sums = "(SELECT account_id, CAST(SUM(charged) AS bigint) AS total FROM charges GROUP BY account_id) AS c";
    let keys = "(SELECT account_id, key_id, CAST(SUM(charged) AS bigint) AS total \
         FROM charges GROUP BY account_id, key_id) AS c";
    raw.run("BEGIN").await?;
    for text in [
        format!(
            "INSERT INTO entries (account_id, id, kind, amount, grant_id, created_at) \
             SELECT account_id, {id}, 'purchase', total, {id}, 0 FROM {sums}"
        ),
        format!(
            "INSERT INTO grants (account_id, id, kind, amount, remaining, created_at) \
             SELECT account_id, {id}, 'purchase', total, 0, 0 FROM {sums}"
        ),
        format!(
            "UPDATE budgets SET spent = c.total FROM {sums} \
             WHERE budgets.account_id = c.account_id AND budgets.id = c.account_id"
        ),
        format!(
            "UPDATE budgets SET spent = c.total, available = -c.total FROM {keys} \
             WHERE budgets.account_id = c.account_id AND budgets.id = c.key_id"
        ),
    ] {
        raw.run(&text).await?;
    }
    raw.run("COMMIT").await
}

/// Leaves the database as after a quiet hour: everything on the disk, the planner informed.
pub(crate) async fn settle_down(raw: &mut Raw) -> Result<(), BenchError> {
    match raw.kind() {
        Kind::Sqlite => raw.run("PRAGMA wal_checkpoint(TRUNCATE)").await,
        Kind::Postgres => {
            raw.run("VACUUM (ANALYZE)").await?;
            raw.run("CHECKPOINT").await
        }
    }
}
