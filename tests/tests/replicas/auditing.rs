//! The auditor is audited: errors are planted in good books, one at a time, and every one is found under its name.

use std::time::Duration;

use auditor::{Database, Outcome, Record};
use tests::{Books, Dice, Place, Storm, StormPlan, verdict};

/// Statements that break the books, with the triggers out of the way, and the rule that is broken.
/// `{one}` is a charge of a finished request of the model `silent`, which its client has seen.
const PLANTED: [(&str, &str, &str); 18] = [
    (
        "a charge is gone",
        "no_charge",
        "DELETE FROM charges WHERE {one}",
    ),
    (
        "a charge that nobody asked for",
        "unexplained",
        "INSERT INTO charges SELECT (jsonb_populate_record(c, jsonb_build_object('id', \
         gen_random_uuid()))).* FROM charges c WHERE {one}",
    ),
    (
        "a request charged to another account too",
        "one_charge",
        "INSERT INTO charges SELECT (jsonb_populate_record(c, jsonb_build_object('account_id', \
         (SELECT id FROM accounts a WHERE a.id <> c.account_id LIMIT 1)))).* \
         FROM charges c WHERE {one}",
    ),
    (
        "a nano-credit too much, everywhere",
        "cost",
        "UPDATE grants SET remaining = remaining - 1 WHERE (account_id, id) = \
           (SELECT g.account_id, g.id FROM grants g JOIN charges c USING (account_id) \
            WHERE g.remaining > 0 AND c.{one} LIMIT 1); \
         UPDATE budgets SET available = available - 1, spent = spent + 1 \
           WHERE id = (SELECT account_id FROM charges WHERE {one}); \
         UPDATE budgets SET spent = spent + 1, \
             available = available - (SELECT 1 FROM keys k WHERE k.id = budgets.id) \
           WHERE id = (SELECT key_id FROM charges WHERE {one}); \
         UPDATE charges SET cost = cost + 1, charged = charged + 1 WHERE {one}",
    ),
    (
        "a token too much, at its price",
        "usage",
        "UPDATE charges SET completion = completion + 1 WHERE {one}",
    ),
    (
        "a balance that is off by a nano-credit",
        "balance",
        "UPDATE budgets SET available = available + 1 WHERE id = \
         (SELECT account_id FROM charges WHERE {one})",
    ),
    (
        "an entry is gone",
        "credit",
        "DELETE FROM entries WHERE id = (SELECT id FROM entries WHERE kind = 'purchase' LIMIT 1)",
    ),
    (
        "an entry of nobody's",
        "credit",
        "INSERT INTO entries SELECT (jsonb_populate_record(e, jsonb_build_object('id', \
         gen_random_uuid(), 'reference', 'unheard of'))).* FROM entries e LIMIT 1",
    ),
    (
        "a grant with less than is left of it",
        "grants",
        "UPDATE grants SET remaining = remaining - 1 WHERE id = \
         (SELECT id FROM grants WHERE remaining > 0 LIMIT 1)",
    ),
    (
        "a grant of another amount than its entry",
        "grant_entry",
        "UPDATE grants SET amount = amount + 1 WHERE id = (SELECT id FROM grants LIMIT 1)",
    ),
    (
        "a lease of a process that has ended",
        "lease_left",
        "INSERT INTO leases SELECT b.account_id, b.id, r.id, 5, 0, 0 FROM budgets b, replicas r \
           WHERE b.kind = 'account' AND b.available > 5 ORDER BY b.id LIMIT 1 \
           ON CONFLICT (account_id, budget_id, replica_id) DO UPDATE SET amount = 5; \
         UPDATE budgets SET leased = 5, available = available - 5 \
           WHERE id = (SELECT budget_id FROM leases WHERE amount = 5 LIMIT 1)",
    ),
    (
        "more leased than there are leases",
        "leases",
        "UPDATE budgets SET leased = leased + 5, available = available - 5 WHERE id = \
         (SELECT account_id FROM charges WHERE {one})",
    ),
    (
        "credit that came after it was spent",
        "floor",
        "UPDATE entries SET created_at = created_at + 3600000000 \
         WHERE amount > 0 AND account_id = (SELECT account_id FROM charges WHERE {one})",
    ),
    (
        "a price that was changed afterwards",
        "cost",
        "UPDATE prices SET price = replace(price, '11.111111111', '11.2') \
         WHERE id = (SELECT price_id FROM charges WHERE {one})",
    ),
    (
        "a loss that nothing explains",
        "house_loss",
        "UPDATE charges SET charged = charged - 1, house_loss = house_loss + 1 WHERE {one}",
    ),
    (
        "a split that does not add up",
        "split",
        "ALTER TABLE charges DROP CONSTRAINT charges_check; \
         UPDATE charges SET house_loss = house_loss + 1 WHERE {one}",
    ),
    (
        "a key with more than its limit",
        "key_limit",
        "UPDATE keys SET limit_credits = COALESCE(limit_credits, 0) + 1 \
         WHERE id = (SELECT key_id FROM charges WHERE {one})",
    ),
    (
        "a settlement put aside",
        "dead_settlement",
        "INSERT INTO dead_settlements SELECT id, account_id, 'planted', '{}', 0 \
         FROM charges WHERE {one}",
    ),
];

const ONE: &str = "id = (SELECT id FROM charges WHERE model = 'silent' AND ended = 'completed' \
                   AND charged > 0 ORDER BY id LIMIT 1)";

/// A copy of a database that nobody is connected to.
async fn copy(url: &str, number: usize) -> String {
    let (server, name) = url.rsplit_once('/').unwrap();
    let copy = format!("{name}_{number}");
    let mut database = Database::open(&format!("{server}/postgres")).await.unwrap();
    let create = format!("CREATE DATABASE {copy} TEMPLATE {name}");
    database.run(&create).await.unwrap();
    format!("{server}/{copy}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_auditor_finds_every_error_that_is_planted() {
    let plan = StormPlan {
        seed: Dice::seed_or(3),
        replicas: 1,
        clients: 12,
        lasts: Duration::from_secs(4),
        ..StormPlan::default()
    };
    let place = Place::new(Books::Postgres).await;
    let storm = Storm::gather(place.clone(), plan).await;
    storm.rage().await;
    let (calm, records) = storm.calm_with_records().await;
    let _ = calm.expect_balanced();
    for (number, (what, rule, statements)) in PLANTED.iter().enumerate() {
        let url = copy(place.url(), number).await;
        let mut database = Database::open(&url).await.unwrap();
        let statements = statements.replace("{one}", ONE);
        let statements = format!("SET session_replication_role = replica; {statements}");
        if let Err(error) = database.run(&statements).await {
            panic!("{what}: {error}");
        }
        drop(database);
        expect_found(&url, &records, what, rule).await;
    }
    // What clients say is evidence as well.
    let is_one = |outcome: Outcome| {
        records.iter().position(|record| match record {
            Record::Answer(answer) => answer.outcome == outcome && answer.output_tokens > 1,
            Record::Credit(_) => false,
        })
    };
    type Change = fn(&mut auditor::Answer);
    let changes: [(&str, &str, Outcome, Change); 3] = [
        (
            "a token less was received",
            "usage",
            Outcome::Exhausted,
            |a| a.output_tokens -= 1,
        ),
        ("another bill was shown", "shown", Outcome::Finished, |a| {
            if let Some(shown) = &mut a.shown {
                shown.cost = "0.000000001".to_owned();
            }
        }),
        (
            "nothing was delivered",
            "charged_for_nothing",
            Outcome::Finished,
            |a| {
                a.outcome = Outcome::Refused;
            },
        ),
    ];
    for (what, rule, outcome, change) in changes {
        let mut records = records.clone();
        let place_of = is_one(outcome).unwrap();
        if let Record::Answer(answer) = &mut records[place_of] {
            change(answer);
        }
        expect_found(place.url(), &records, what, rule).await;
    }
}

async fn expect_found(url: &str, records: &[Record], what: &str, rule: &str) {
    let report = verdict(url, records, &["--closed"]).await;
    assert!(!report.balanced, "{what} was not found");
    let rules: Vec<_> = report.findings.iter().map(|one| &one.rule).collect();
    assert!(rules.iter().any(|one| *one == rule), "{what}: {rules:?}");
}
