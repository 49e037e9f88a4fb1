//! The proof of the books: every invariant as a query over one snapshot, naming the first broken row.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use billing::{Credits, End, Price};
use tokens::Usage;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    booking::{LATE_SETTLEMENT, USAGE_ABOVE_HOLD},
    charge::{USAGE_COLUMNS, UsageColumns},
    check::count,
    link::Link,
    sql::{Flavor, sql},
};

/// The result of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// True when every check holds.
    pub balanced: bool,
    /// The checks, in a fixed order.
    pub checks: Vec<Check>,
    /// What the operator bore so far, by cause.
    pub house_losses: BTreeMap<String, Credits>,
    /// The sum of all differences between balances and their ledgers, without sign.
    pub imbalance: Credits,
}

/// One invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, stable.
    pub name: &'static str,
    /// What it says, for people.
    pub says: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// How many rows it looked at.
    pub rows_checked: u64,
    /// The first row that breaks it, with what is wrong.
    pub first_broken: Option<String>,
}

/// An invariant in SQL: which rows it looks at, and which of them break it.
struct Rule {
    name: &'static str,
    says: &'static str,
    /// How many rows there are to look at.
    counts: &'static str,
    /// The rows that break it: an id as text, what is there, what should be.
    broken: &'static str,
}

/// `available + leased` of an account against its ledger; also the sum of the differences.
const BALANCES: &str = "SELECT b.id, b.available + b.leased AS has, \
     COALESCE(e.total, 0) - COALESCE(c.total, 0) AS should FROM budgets b \
     LEFT JOIN (SELECT account_id, CAST(SUM(amount) AS bigint) AS total \
                FROM entries GROUP BY account_id) e ON e.account_id = b.id \
     LEFT JOIN (SELECT account_id, CAST(SUM(charged) AS bigint) AS total \
                FROM charges GROUP BY account_id) c ON c.account_id = b.id \
     WHERE b.kind = 'account'";

const RULES: [Rule; 13] = [
    Rule {
        name: "balance",
        says: "an account's credit is the sum of its entries less the sum of its charges",
        counts: "SELECT COUNT(*) FROM budgets WHERE kind = 'account'",
        broken: "SELECT id, has, should FROM ({balances}) AS x WHERE has <> should",
    },
    Rule {
        name: "leases",
        says: "what is leased of a budget is the sum of its leases",
        counts: "SELECT COUNT(*) FROM budgets",
        broken: "SELECT b.id, b.leased AS has, COALESCE(l.total, 0) AS should FROM budgets b \
            LEFT JOIN (SELECT budget_id, CAST(SUM(amount) AS bigint) AS total \
                       FROM leases GROUP BY budget_id) l ON l.budget_id = b.id \
            WHERE b.leased <> COALESCE(l.total, 0)",
    },
    Rule {
        name: "grants",
        says: "what remains of an account's grants, less its debt, is its credit",
        counts: "SELECT COUNT(*) FROM budgets WHERE kind = 'account'",
        broken: "SELECT b.id, b.available + b.leased AS has, \
                COALESCE(g.total, 0) - b.debt AS should FROM budgets b \
            LEFT JOIN (SELECT account_id, CAST(SUM(remaining) AS bigint) AS total \
                       FROM grants GROUP BY account_id) g ON g.account_id = b.id \
            WHERE b.kind = 'account' AND b.available + b.leased <> COALESCE(g.total, 0) - b.debt",
    },
    Rule {
        name: "grants_have_entries",
        says: "every grant was made by an entry of its amount, and no more remains of it",
        counts: "SELECT COUNT(*) FROM grants",
        broken: "SELECT g.id, g.amount AS has, COALESCE(e.amount, 0) AS should FROM grants g \
            LEFT JOIN entries e ON e.account_id = g.account_id AND e.id = g.id \
            WHERE e.amount IS NULL OR e.amount <> g.amount \
               OR g.remaining < 0 OR g.remaining > g.amount",
    },
    Rule {
        name: "spent",
        says: "what a budget has spent is the sum of what its charges took",
        counts: "SELECT COUNT(*) FROM budgets",
        broken: "SELECT b.id, b.spent AS has, COALESCE(c.total, 0) AS should FROM budgets b \
            LEFT JOIN (SELECT account_id AS id, CAST(SUM(charged) AS bigint) AS total \
                       FROM charges GROUP BY account_id \
                       UNION ALL \
                       SELECT key_id AS id, CAST(SUM(charged) AS bigint) AS total \
                       FROM charges GROUP BY key_id) c ON c.id = b.id \
            WHERE b.spent <> COALESCE(c.total, 0)",
    },
    Rule {
        name: "floors",
        says: "no account is below its overdraft",
        counts: "SELECT COUNT(*) FROM budgets WHERE kind = 'account'",
        broken: "SELECT b.id, b.available AS has, -a.overdraft AS should FROM budgets b \
            JOIN accounts a ON a.id = b.id \
            WHERE b.kind = 'account' AND (b.available < -a.overdraft OR b.floor <> -a.overdraft)",
    },
    Rule {
        name: "key_limits",
        says: "what a key has left, leased and spent together is its limit",
        counts: "SELECT COUNT(*) FROM keys",
        broken: "SELECT k.id, COALESCE(b.available + b.leased + b.spent, 0) AS has, \
                COALESCE(k.limit_credits, 0) AS should FROM keys k \
            LEFT JOIN budgets b ON b.id = k.id AND b.account_id = k.account_id \
            WHERE b.id IS NULL \
               OR b.available + b.leased + b.spent <> COALESCE(k.limit_credits, 0)",
    },
    Rule {
        name: "charges_split",
        says: "what a request cost was taken from its account or borne by the operator",
        counts: "SELECT COUNT(*) FROM charges",
        broken: "SELECT id, charged + house_loss AS has, cost AS should FROM charges \
            WHERE charged + house_loss <> cost OR charged < 0 OR house_loss < 0",
    },
    Rule {
        name: "one_charge_a_request",
        says: "no request was charged twice",
        counts: "SELECT COUNT(*) FROM charges",
        broken: "SELECT id, COUNT(*) AS has, CAST(1 AS bigint) AS should FROM charges \
            GROUP BY id HAVING COUNT(*) > 1",
    },
    Rule {
        name: "late_losses_have_charges",
        says: "every difference found late belongs to a charge",
        counts: "SELECT COUNT(*) FROM house_losses",
        broken: "SELECT h.id, h.amount AS has, CAST(0 AS bigint) AS should FROM house_losses h \
            LEFT JOIN charges c ON c.account_id = h.account_id AND c.id = h.id \
            WHERE c.id IS NULL",
    },
    Rule {
        name: "no_dead_leases",
        says: "no lease outlives its replica while another one could take it back",
        counts: "SELECT COUNT(*) FROM leases",
        broken: "SELECT l.budget_id AS id, l.amount AS has, CAST(0 AS bigint) AS should \
            FROM leases l LEFT JOIN replicas r ON r.id = l.replica_id \
            WHERE l.amount > 0 AND (r.id IS NULL OR r.state <> 'alive' \
               OR (r.heartbeat_at < {now} - r.ttl - 60000000 \
                   AND EXISTS (SELECT 1 FROM replicas o \
                               WHERE o.state = 'alive' AND o.heartbeat_at > {now} - o.ttl)))",
    },
    Rule {
        name: "no_orphans",
        says: "every row belongs to an account that is there",
        counts: "SELECT COUNT(*) FROM accounts",
        broken: "SELECT x.id, x.n AS has, CAST(0 AS bigint) AS should FROM (\
               SELECT account_id AS id, COUNT(*) AS n FROM entries GROUP BY account_id \
               UNION ALL SELECT account_id, COUNT(*) FROM charges GROUP BY account_id \
               UNION ALL SELECT account_id, COUNT(*) FROM grants GROUP BY account_id \
               UNION ALL SELECT account_id, COUNT(*) FROM keys GROUP BY account_id \
               UNION ALL SELECT id, COUNT(*) FROM accounts GROUP BY id \
               UNION ALL SELECT budget_id, COUNT(*) FROM leases GROUP BY budget_id \
               UNION ALL SELECT key_id, COUNT(*) FROM charges GROUP BY key_id) AS x \
            LEFT JOIN budgets b ON b.id = x.id WHERE b.id IS NULL",
    },
    Rule {
        name: "no_dead_settlements",
        says: "no settlement was put aside",
        counts: "SELECT COUNT(*) FROM dead_settlements",
        broken: "SELECT request_id AS id, CAST(1 AS bigint) AS has, CAST(0 AS bigint) AS should \
            FROM dead_settlements",
    },
];

/// The audit looks at whole tables.
const STATEMENT_MAX: Duration = Duration::from_secs(600);
/// Charges computed again at a time.
const CHARGES_AT_A_TIME: i64 = 5_000;

#[derive(sqlx::FromRow)]
struct Broken {
    id: Uuid,
    has: i64,
    should: i64,
}

#[derive(sqlx::FromRow)]
struct Priced {
    account_id: Uuid,
    id: Uuid,
    price_id: Uuid,
    ended: String,
    cost: i64,
    #[sqlx(flatten)]
    usage: UsageColumns,
}

impl Store {
    /// Proves the books on one snapshot.
    ///
    /// # Errors
    /// [`StoreError::Database`]; books that are off are no error.
    pub async fn audit(&self) -> Result<Audit, StoreError> {
        let mut tx = self.backend().snapshot().await?;
        let mut link = tx.link();
        match link.flavor() {
            Flavor::Sqlite => {}
            Flavor::Postgres => {
                let patience = STATEMENT_MAX.as_millis();
                link.run(sql(format!("SET LOCAL statement_timeout = {patience}")))
                    .await?;
            }
        }
        let mut checks = Vec::with_capacity(RULES.len() + 1);
        for rule in &RULES {
            checks.push(check(&mut link, rule).await?);
        }
        checks.push(costs(&mut link).await?);
        let house_losses = house_losses(&mut link).await?;
        let off = format!(
            "SELECT CAST(COALESCE(SUM(ABS(has - should)), 0) AS bigint) FROM ({BALANCES}) AS x"
        );
        let off: Vec<(i64,)> = link.all_within(sql(off), STATEMENT_MAX).await?;
        tx.commit().await?;
        Ok(Audit {
            balanced: checks.iter().all(|check| check.ok),
            checks,
            house_losses,
            imbalance: Credits::from_nanos(off.first().map_or(0, |(off,)| *off)),
        })
    }
}

async fn check(link: &mut Link<'_>, rule: &Rule) -> Result<Check, StoreError> {
    let counted: Vec<(i64,)> = link.all_within(sql(rule.counts), STATEMENT_MAX).await?;
    let broken = format!("{} ORDER BY 1 LIMIT 1", rule.broken);
    let broken = sql(broken).with("{balances}", BALANCES);
    let broken: Vec<Broken> = link.all_within(broken, STATEMENT_MAX).await?;
    let first_broken = broken.first().map(|row| {
        let (has, should) = (
            Credits::from_nanos(row.has),
            Credits::from_nanos(row.should),
        );
        format!("{}: {has}, should be {should}", row.id.simple())
    });
    Ok(Check {
        name: rule.name,
        says: rule.says,
        ok: first_broken.is_none(),
        rows_checked: counted.first().map_or(0, |(rows,)| count(*rows)),
        first_broken,
    })
}

/// Computes every charge again from its price version and its usage.
async fn costs(link: &mut Link<'_>) -> Result<Check, StoreError> {
    let texts: Vec<(Uuid, String)> = link
        .all_within(sql("SELECT id, price FROM prices"), STATEMENT_MAX)
        .await?;
    let prices: HashMap<Uuid, Option<Price>> = texts
        .into_iter()
        .map(|(id, text)| (id, Price::from_json(&text).ok()))
        .collect();
    let mut first_broken = None;
    let mut rows_checked = 0;
    let mut after = (Uuid::nil(), Uuid::nil());
    loop {
        let select = sql(format!(
            "SELECT account_id, id, price_id, ended, cost, {USAGE_COLUMNS} FROM charges \
             WHERE (account_id, id) > (?, ?) ORDER BY account_id, id LIMIT ?"
        ))
        .uuid(after.0)
        .uuid(after.1)
        .int(CHARGES_AT_A_TIME);
        let rows: Vec<Priced> = link.all_within(select, STATEMENT_MAX).await?;
        let Some(last) = rows.last() else {
            break;
        };
        after = (last.account_id, last.id);
        for row in &rows {
            rows_checked += 1;
            if first_broken.is_none() {
                first_broken = wrong_cost(row, &prices);
            }
        }
    }
    Ok(Check {
        name: "costs",
        says: "every charge's cost is its price version times its usage",
        ok: first_broken.is_none(),
        rows_checked,
        first_broken,
    })
}

fn wrong_cost(row: &Priced, prices: &HashMap<Uuid, Option<Price>>) -> Option<String> {
    let id = row.id.simple();
    let Some(Some(price)) = prices.get(&row.price_id) else {
        return Some(format!("{id}: its price version is not kept"));
    };
    let has = Credits::from_nanos(row.cost);
    let usage = row.usage.usage();
    let nothing = row.ended == End::UpstreamFailed.as_str() && usage == Usage::default();
    let should = if nothing {
        // A provider that failed before any output is owed nothing, not even a fee per request.
        Ok(Credits::ZERO)
    } else {
        price.cost(&usage)
    };
    match should {
        Ok(should) if should == has => None,
        Ok(should) => Some(format!("{id}: {has}, should be {should}")),
        Err(error) => Some(format!("{id}: {has}, but {error}")),
    }
}

async fn house_losses(link: &mut Link<'_>) -> Result<BTreeMap<String, Credits>, StoreError> {
    let select = sql("SELECT cause, CAST(SUM(amount) AS bigint) FROM (\
           SELECT CASE WHEN late THEN ? ELSE ? END AS cause, house_loss AS amount \
             FROM charges WHERE house_loss > 0 \
           UNION ALL SELECT cause, amount FROM house_losses) AS x GROUP BY cause")
    .text(LATE_SETTLEMENT)
    .text(USAGE_ABOVE_HOLD);
    let rows: Vec<(String, i64)> = link.all_within(select, STATEMENT_MAX).await?;
    Ok(rows
        .into_iter()
        .map(|(cause, amount)| (cause, Credits::from_nanos(amount)))
        .collect())
}
