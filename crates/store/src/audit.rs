//! The proof of the books: every invariant as a query over one snapshot, naming the first broken row.

mod rules;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
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
    export::charges_at_one_moment,
    link::Link,
    sql::{Flavor, sql},
};
use rules::{BALANCES, On, RULES, Rule, Unit};

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
    pub first_broken: Option<BrokenRow>,
}

/// A row that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenRow {
    /// Its ids, the account first where there is one.
    pub ids: Vec<String>,
    /// What else names it or says what is wrong, in at most 200 characters.
    pub note: Option<String>,
    /// What is there.
    pub has: String,
    /// What should be.
    pub should: String,
}

impl fmt::Display for BrokenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.ids.clone();
        names.extend(self.note.clone());
        let (has, should) = (&self.has, &self.should);
        write!(f, "{}: {has}, should be {should}", names.join(" "))
    }
}

/// The cause of a loss that somebody decided on.
const RESOLVED: &str = "resolved";
/// Of a text of others that names a broken row.
const NOTE_CHARS_MAX: usize = 200;
/// The audit looks at whole tables.
const STATEMENT_MAX: Duration = Duration::from_secs(600);
/// Charges computed again at a time.
const CHARGES_AT_A_TIME: i64 = 5_000;

#[derive(sqlx::FromRow)]
struct Broken {
    a: Option<Uuid>,
    b: Option<Uuid>,
    note: Option<String>,
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
        let mut tx = charges_at_one_moment(self).await?;
        let mut link = tx.link();
        let here = match link.flavor() {
            Flavor::Sqlite => On::Sqlite,
            Flavor::Postgres => On::Postgres,
        };
        let mut checks = Vec::with_capacity(RULES.len() + 1);
        for rule in RULES {
            if rule.on == On::Both || rule.on == here {
                checks.push(check(&mut link, rule).await?);
            }
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
    // Apart from the limit: to find one of many broken rows soon, Postgres would compare every account
    // with every other one, and in good books there is none to find.
    let broken = format!(
        "WITH broken AS MATERIALIZED ({}) SELECT a, b, note, has, should FROM broken \
         ORDER BY 1, 2, 3 LIMIT 1",
        rule.broken
    );
    let broken = sql(broken)
        .with("{balances}", BALANCES)
        .with("{no_id}", "CAST(NULL AS uuid)")
        .with("{no_note}", "CAST(NULL AS text)");
    let broken: Vec<Broken> = link.all_within(broken, STATEMENT_MAX).await?;
    let first_broken = broken.into_iter().next().map(|row| row.named(rule));
    Ok(Check {
        name: rule.name,
        says: rule.says,
        ok: first_broken.is_none(),
        rows_checked: counted.first().map_or(0, |(rows,)| count(*rows)),
        first_broken,
    })
}

impl Broken {
    fn named(self, rule: &Rule) -> BrokenRow {
        let second = self.b.filter(|b| Some(*b) != self.a);
        let ids = [self.a, second]
            .into_iter()
            .zip(rule.ids)
            .filter_map(|(id, kind)| Some(format!("{kind}_{}", id?.simple())))
            .collect();
        let figure = |figure: i64| match rule.unit {
            Unit::Credits => Credits::from_nanos(figure).to_string(),
            Unit::Rows => figure.to_string(),
        };
        BrokenRow {
            ids,
            note: self
                .note
                .map(|note| note.chars().take(NOTE_CHARS_MAX).collect()),
            has: figure(self.has),
            should: figure(self.should),
        }
    }
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
             WHERE (id, account_id) > (?, ?) ORDER BY id, account_id LIMIT ?"
        ))
        .uuid(after.0)
        .uuid(after.1)
        .int(CHARGES_AT_A_TIME);
        let rows: Vec<Priced> = link.all_within(select, STATEMENT_MAX).await?;
        let Some(last) = rows.last() else {
            break;
        };
        after = (last.id, last.account_id);
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

fn wrong_cost(row: &Priced, prices: &HashMap<Uuid, Option<Price>>) -> Option<BrokenRow> {
    let has = Credits::from_nanos(row.cost);
    let broken = |note: Option<String>, should: String| {
        Some(BrokenRow {
            ids: vec![
                format!("acct_{}", row.account_id.simple()),
                format!("req_{}", row.id.simple()),
            ],
            note,
            has: has.to_string(),
            should,
        })
    };
    let Some(Some(price)) = prices.get(&row.price_id) else {
        let version = row.price_id.simple();
        let note = format!("price version {version} is not kept");
        return broken(Some(note), "unknown".into());
    };
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
        Ok(should) => broken(None, should.to_string()),
        Err(error) => broken(Some(error.to_string()), "unknown".into()),
    }
}

async fn house_losses(link: &mut Link<'_>) -> Result<BTreeMap<String, Credits>, StoreError> {
    let select = sql("SELECT cause, CAST(SUM(amount) AS bigint) FROM (\
           SELECT CASE WHEN late THEN ? ELSE ? END AS cause, house_loss AS amount \
             FROM charges WHERE house_loss > 0 \
           UNION ALL SELECT ?, late_loss FROM closings WHERE late_loss > 0 \
           UNION ALL SELECT ?, house_loss - late_loss FROM closings \
             WHERE house_loss > late_loss \
           UNION ALL SELECT ?, house_loss FROM resolutions WHERE house_loss > 0 \
           UNION ALL SELECT cause, amount FROM house_losses) AS x GROUP BY cause")
    .text(LATE_SETTLEMENT)
    .text(USAGE_ABOVE_HOLD)
    .text(LATE_SETTLEMENT)
    .text(USAGE_ABOVE_HOLD)
    .text(RESOLVED);
    let rows: Vec<(String, i64)> = link.all_within(select, STATEMENT_MAX).await?;
    Ok(rows
        .into_iter()
        .map(|(cause, amount)| (cause, Credits::from_nanos(amount)))
        .collect())
}
