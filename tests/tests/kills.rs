//! `kill -9` at random moments under load, again and again: nothing acknowledged is lost, nobody pays for what they did not get.

use std::{env, time::Duration};

use auditor::Outcome;
use tempfile::TempDir;
use tests::{Books, Calm, Dice, Faults, Place, Storm, StormPlan};

/// How often processes are killed, for each store; the long form is a hundred and more.
fn kills(otherwise: usize) -> usize {
    env::var("TOLLWAY_KILLS").map_or(otherwise, |text| text.parse().unwrap())
}

fn plan(seed: u64, books: Books) -> StormPlan {
    let (replicas, kills, kill_ms) = match books {
        // One process owns the file: it has to live for long enough to write checkpoints.
        Books::Sqlite => (1, kills(4), (3_000, 9_000)),
        Books::Postgres => (4, kills(6), (300, 2_800)),
    };
    StormPlan {
        seed,
        replicas,
        clients: 24,
        long: 10,
        lasts: Duration::from_secs(24 * 3_600),
        faults: Faults {
            kills,
            kill_ms,
            ..Faults::default()
        },
        ..StormPlan::default()
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .copied()
        .unwrap_or_default()
}

fn print(what: &str, seed: u64, calm: &Calm) {
    let mut back = calm.back.clone();
    back.sort_unstable();
    let totals = &calm.report.totals;
    println!(
        "{what}, seed {seed}: {} kills, {:?}\n\
         acknowledged settlements {}, lost {}\n\
         nano-credits lost {} in all, {} at most by one process; bound {} (what {} requests that \
         ended with a process, or right before, had delivered)\n\
         charged for what was written down and not got out any more: {}\n\
         leases back after p50 {:?}, p99 {:?}\n{totals:?}",
        calm.kills,
        calm.outcomes,
        totals.acknowledged,
        totals.acknowledged_lost,
        totals.lost,
        totals.lost_max,
        totals.at_risk,
        totals.requests_at_risk,
        totals.ahead,
        quantile(&back, 50),
        quantile(&back, 99),
    );
}

async fn killed(books: Books, seed: u64, change: impl FnOnce(&mut StormPlan)) -> Calm {
    let mut plan = plan(seed, books);
    change(&mut plan);
    let wanted = plan.faults.kills;
    let storm = Storm::gather(Place::new(books).await, plan).await;
    storm.rage().await;
    let calm = storm.calm().await;
    print(&format!("{books:?}"), seed, &calm);
    let totals = &calm.expect_balanced().totals;
    assert_eq!(calm.kills, wanted);
    assert_eq!(calm.back.len(), wanted, "every lease is back");
    assert!(totals.acknowledged > 0);
    assert_eq!(totals.acknowledged_lost, 0);
    assert!(totals.lost <= totals.at_risk, "{totals:?}");
    assert_eq!(
        totals.cost,
        totals.charged + totals.house_loss + totals.lost
    );
    assert!(calm.count(Outcome::Lost) > 0, "nothing was hit");
    calm
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_again_and_again_on_sqlite_bends_no_books() {
    killed(Books::Sqlite, Dice::seed_or(23), |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_again_and_again_on_postgres_bends_no_books() {
    killed(Books::Postgres, Dice::seed_or(29), |_| ()).await;
}

/// What a process may have written down of a stream and not got out: a few words at their pace.
const AHEAD_TOKENS: u64 = 32;

async fn killed_with_a_local_journal(books: Books, seed: u64) {
    let folder = TempDir::new().unwrap();
    let journals = folder.path().join("replica-{slot}");
    let journals = journals.to_str().unwrap().to_owned();
    let calm = killed(books, seed, |plan| {
        plan.variables
            .push(("TOLLWAY_LOCAL_JOURNAL".to_owned(), journals));
        plan.ahead_tokens = AHEAD_TOKENS;
    })
    .await;
    let totals = &calm.report.totals;
    assert_eq!(
        (totals.lost, totals.acknowledged_lost),
        (0, 0),
        "{totals:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_with_a_local_journal_loses_nothing_on_sqlite() {
    killed_with_a_local_journal(Books::Sqlite, Dice::seed_or(31)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_with_a_local_journal_loses_nothing_on_postgres() {
    killed_with_a_local_journal(Books::Postgres, Dice::seed_or(37)).await;
}
