//! A process that sleeps past its leases: nothing is spent twice, what it delivered is booked late, and it goes on under a new name.

use std::time::Duration;

use auditor::{Database, Outcome};
use tests::{
    Books, Dice, Faults, Place, Storm, StormPlan, Wish, eventually, replica_states, tokens_cost,
};

use super::number;

/// Streams that the frozen process has open.
const STREAMS: usize = 5;
/// Requests that wait at its door while it sleeps.
const KNOCKS: usize = 60;

async fn is_reaped(storm: &Storm, name: &str) {
    eventually("the frozen one is taken for dead", async || {
        let states = replica_states(storm.database_url()).await;
        (states.get(name).map(String::as_str) == Some("reaped")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replica_is_fenced_and_its_late_settlements_are_borne_or_paid() {
    let plan = StormPlan {
        replicas: 2,
        hot: 0,
        cold: 0,
        ..StormPlan::default()
    };
    let storm = Storm::gather(Place::new(Books::Postgres).await, plan).await;
    let frozen = storm.fleet.target(0).unwrap();
    let awake = storm.fleet.target(1).unwrap();
    // Each holds 17 tokens, 9 of prompt and 8 of output; 78 more can be leased for nothing.
    let account = storm
        .open_account(&tokens_cost(STREAMS as u64 * 17 + 78).to_string(), None)
        .await;
    let gated = Wish::stream("gated", Some(8));
    let exact = Wish::plain("exact", Some(4));
    let streams = (0..STREAMS).map(|_| storm.ask(&frozen, &account, &gated));
    let sleeping = async {
        storm
            .provider
            .wait_for(|stats| stats.at_gates == STREAMS as u64)
            .await
            .unwrap();
        // It leases some that lies idle when it freezes.
        let taken = storm.ask(&frozen, &account, &exact).await;
        assert_eq!(taken.answer.outcome, Outcome::Finished, "{taken:?}");
        storm.fleet.freeze(0);
        is_reaped(&storm, &frozen.name).await;
        // What it held is back, and is spent by the other: 150 tokens, eleven times 13.
        for _ in 0..11 {
            let taken = storm.ask(&awake, &account, &exact).await;
            assert_eq!(taken.answer.outcome, Outcome::Finished, "{taken:?}");
        }
        // They are the first to be served when it wakes, before it can know of anything.
        let knocks = (0..KNOCKS).map(|_| storm.ask_anew(&frozen, &account, &exact));
        let waking = async {
            // tidy: sleeps because what was sent must lie there when it wakes; later is no harm.
            tokio::time::sleep(Duration::from_millis(500)).await;
            storm.provider.open("go");
            storm.fleet.thaw(0);
        };
        let (knocks, ()) = tokio::join!(futures_util::future::join_all(knocks), waking);
        for knock in knocks {
            assert_eq!(knock.answer.outcome, Outcome::Refused, "{knock:?}");
        }
    };
    let (streams, ()) = tokio::join!(futures_util::future::join_all(streams), sleeping);
    // They were covered when they began: their clients have them whole.
    for stream in &streams {
        assert_eq!(stream.answer.outcome, Outcome::Finished, "{stream:?}");
    }
    // It goes on: whom it refuses, it refuses for a reason, and whom credit is there for, it serves.
    let rich = storm.open_account("1", None).await;
    let served = eventually("the thawed one serves", async || {
        let taken = storm.ask(&frozen, &rich, &exact).await;
        (taken.answer.outcome == Outcome::Finished).then_some(taken)
    })
    .await;
    assert_eq!(served.answer.replica, frozen.name);
    let left = &storm.settled(&account).await["balance"]["total"];
    assert_eq!(left, "0", "late settlements take what is left");
    let mut database = Database::open(storm.database_url()).await.unwrap();
    let lives = database.replicas().await.unwrap();
    let lives = lives.iter().filter(|one| one.host == frozen.name).count();
    assert_eq!(lives, 2, "it goes on as another replica");
    drop(database);
    let calm = storm.calm().await;
    let totals = &calm.expect_balanced().totals;
    // Five streams of 5 + 8 tokens as reported; 7 tokens were left for them.
    let late = i128::from(tokens_cost(STREAMS as u64 * 13 - 7).nanos());
    assert_eq!((totals.house_loss, totals.lost), (late, 0), "{totals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_freeze_under_load_lose_nothing_and_overspend_nothing() {
    let seed = Dice::seed_or(61);
    let plan = StormPlan {
        seed,
        clients: 24,
        long: 6,
        lasts: Duration::from_secs(number("TOLLWAY_FREEZE_SECONDS", 20)),
        faults: Faults {
            freeze: true,
            ..Faults::default()
        },
        ..StormPlan::default()
    };
    let storm = Storm::gather(Place::new(Books::Postgres).await, plan).await;
    storm.rage().await;
    let mut database = Database::open(storm.database_url()).await.unwrap();
    let replicas = database.replicas().await.unwrap();
    let reaped = replicas.iter().filter(|one| one.state == "reaped").count();
    drop(database);
    let calm = storm.calm().await;
    println!(
        "seed {seed}: {reaped} taken for dead, {:?}, {:?}",
        calm.outcomes, calm.report.totals
    );
    let totals = &calm.expect_balanced().totals;
    assert!(reaped > 0, "nobody slept long enough");
    assert_eq!((totals.lost, totals.requests_at_risk), (0, 0), "{totals:?}");
}
