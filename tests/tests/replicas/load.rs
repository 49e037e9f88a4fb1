//! Four processes, hot and cold accounts, every kind of answer and an operator at work: every nano-credit is found.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use auditor::Outcome;
use tests::{Books, Dice, Place, Storm, StormPlan, Wish, grants_hold, tokens_cost};

use super::number;

/// Between two looks at the books while the storm rages.
const LOOK_EVERY: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn c4_four_replicas_take_what_was_delivered_and_nothing_else() {
    let seed = Dice::seed_or(41);
    let place = Place::new(Books::Postgres).await;
    let plan = StormPlan {
        seed,
        standing: usize::try_from(number("TOLLWAY_LOAD_STREAMS", 400)).unwrap(),
        lasts: Duration::from_secs(number("TOLLWAY_LOAD_SECONDS", 12)),
        ..StormPlan::default()
    };
    let storm = Storm::gather(place.clone(), plan).await;
    let looks = Arc::new(AtomicU32::new(0));
    let looking = grants_hold(place.url().to_owned(), LOOK_EVERY, Arc::clone(&looks));
    let looking = tokio::spawn(looking);
    storm.rage().await;
    assert!(!looking.is_finished(), "{:?}", looking.await);
    looking.abort();
    one_of_each(&storm).await;
    let calm = storm.calm().await;
    println!(
        "seed {seed}: {:?}, {:?}, looked {looks:?} times",
        calm.outcomes, calm.report.totals
    );
    let totals = &calm.expect_balanced().totals;
    assert_eq!((totals.lost, totals.requests_at_risk), (0, 0), "{totals:?}");
    assert_eq!(totals.cost, totals.charged + totals.house_loss);
    assert_eq!(totals.acknowledged_lost, 0);
    assert!(totals.acknowledged > 0 && looks.load(Ordering::Relaxed) > 3);
    for outcome in [
        Outcome::Finished,
        Outcome::HungUp,
        Outcome::Failed,
        Outcome::Exhausted,
        Outcome::Refused,
    ] {
        assert!(calm.count(outcome) > 0, "{outcome:?}: {:?}", calm.outcomes);
    }
    assert_eq!(calm.count(Outcome::Lost), 0, "{:?}", calm.outcomes);
}

/// Every end that there is, for certain: the storm decides by chance.
async fn one_of_each(storm: &Storm) {
    let target = storm.fleet.targets().next().unwrap();
    let poor = storm.open_account(&tokens_cost(15).to_string(), None).await;
    let rich = storm.open_account("1", None).await;
    let whole = Wish::stream("short", None);
    let left = Wish {
        leave_after: Some(3),
        ..Wish::stream("long", None)
    };
    for (account, wish, outcome) in [
        (&poor, whole, Outcome::Exhausted),
        (&poor, whole, Outcome::Refused),
        (&rich, whole, Outcome::Finished),
        (&rich, left, Outcome::HungUp),
        (&rich, Wish::stream("broken", None), Outcome::Failed),
    ] {
        let taken = storm.ask(&target, account, &wish).await;
        assert_eq!(taken.answer.outcome, outcome, "{taken:?}");
    }
}
