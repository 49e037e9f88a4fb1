//! Credit for exactly so many requests, sent to any of four processes: exactly so many succeed, on any of them.

use auditor::Outcome;
use tests::{Account, Books, Dice, Place, Storm, StormPlan, Taken, Wish, credits, tokens_cost};
use tokio::sync::{Barrier, Semaphore};

use super::number;

/// What one request costs, and what is held for it: nine tokens of prompt and four of output.
const TOKENS: u64 = 13;
const OUTPUT: u64 = 4;
/// Requests at once.
const CROWD: usize = 48;
/// A client that is told that credit is held by running requests asks again so often.
const TRIES: usize = 40;

/// Sends all at once to any process; how many had to ask again, having been told so.
async fn all_succeed(storm: &Storm, account: &Account, wish: &Wish, count: u64, dice: &mut Dice) {
    let barrier = Barrier::new(usize::try_from(count).unwrap());
    let places = Semaphore::new(CROWD);
    let one = |mut dice: Dice| {
        let (barrier, places) = (&barrier, &places);
        async move {
            barrier.wait().await;
            let _place = places.acquire().await.unwrap();
            for tried in 0..TRIES {
                let target = storm.fleet.any(&mut dice).unwrap();
                let taken = storm.ask(&target, account, wish).await;
                if taken.answer.outcome == Outcome::Finished {
                    return tried;
                }
                assert!(is_held(&taken), "{taken:?}");
            }
            panic!("refused {TRIES} times");
        }
    };
    let requests = (0..count).map(|_| one(dice.split()));
    let tries = futures_util::future::join_all(requests).await;
    let again: usize = tries.iter().sum();
    println!(
        "{count} of {}: {again} were told to come again",
        wish.model.id
    );
    // What is held is what it costs, so that credit is there for each at any time, somewhere. On
    // a machine that is too busy a few may be told to come again, which they are right to do.
    let many = usize::try_from(count / 100).unwrap();
    assert!(
        again <= many,
        "credit that lay with another replica was not found"
    );
    let target = storm.fleet.any(dice).unwrap();
    let refused = storm.ask(&target, account, wish).await;
    assert_eq!(refused.answer.status, 402, "{refused:?}");
    assert!(!is_held(&refused), "{refused:?}");
}

/// The only refusal that asks the client to come again.
fn is_held(taken: &Taken) -> bool {
    taken.answer.status == 402 && taken.metadata["reason"] == "held_by_running_requests"
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_credit_for_a_thousand_requests_serves_a_thousand_on_any_replica() {
    let seed = Dice::seed_or(7);
    let rounds = number("TOLLWAY_EXACT_ROUNDS", 1);
    let all = number("TOLLWAY_EXACT_REQUESTS", 1_000);
    let plan = StormPlan {
        seed,
        hot: 0,
        cold: 0,
        ..StormPlan::default()
    };
    let storm = Storm::gather(Place::new(Books::Postgres).await, plan).await;
    for round in 0..rounds {
        let mut dice = Dice::new(seed + round);
        let (plain, stream) = (
            Wish::plain("exact", Some(OUTPUT)),
            Wish::stream("exact", Some(OUTPUT)),
        );
        let some = all / 4;
        for (wish, count, by_limit) in [
            (plain, all, false),
            (stream, some, false),
            (plain, some, true),
        ] {
            let credit = tokens_cost(TOKENS * count).to_string();
            let account = if by_limit {
                storm.open_account("3", Some(&credit)).await
            } else {
                storm.open_account(&credit, None).await
            };
            all_succeed(&storm, &account, &wish, count, &mut dice).await;
            let left = &storm.settled(&account).await["balance"]["total"];
            let expected = if by_limit {
                credits("3").checked_sub(credits(&credit)).unwrap()
            } else {
                credits("0")
            };
            assert_eq!(left, &expected.to_string());
        }
    }
    let _ = storm.calm().await.expect_balanced();
}
