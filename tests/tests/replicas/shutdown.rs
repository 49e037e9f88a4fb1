//! SIGTERM under load: every stream ends with a word, every settlement is written, every lease is back.

use std::time::Duration;

use auditor::Outcome;
use tests::{Books, Dice, Faults, Place, Storm, StormPlan, Wish};

use super::number;

fn grace() -> Vec<(String, String)> {
    vec![("TOLLWAY_SHUTDOWN_GRACE_SECONDS".to_owned(), "1".to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_sigterm_with_a_hundred_streams_running_loses_nothing() {
    const STREAMS: usize = 100;
    for books in Books::ALL {
        let plan = StormPlan {
            replicas: 1,
            hot: 0,
            cold: 0,
            variables: grace(),
            ..StormPlan::default()
        };
        let storm = Storm::gather(Place::new(books).await, plan).await;
        let account = storm.open_account("5", None).await;
        let target = storm.fleet.target(0).unwrap();
        let wish = Wish::stream("endless", None);
        let streams = (0..STREAMS).map(|_| storm.ask(&target, &account, &wish));
        let stop = async {
            storm
                .provider
                .wait_for(|stats| stats.open_streams == STREAMS as u64)
                .await
                .unwrap();
            storm.fleet.terminate(0).await.unwrap();
        };
        let (streams, ()) = tokio::join!(futures_util::future::join_all(streams), stop);
        for stream in &streams {
            assert_eq!(stream.answer.outcome, Outcome::Stopped, "{stream:?}");
        }
        let calm = storm.calm().await;
        let totals = &calm.expect_balanced().totals;
        println!("{books:?}: {totals:?}");
        assert_eq!((totals.lost, totals.house_loss), (0, 0), "{totals:?}");
        assert_eq!(totals.delivered, STREAMS as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_rolling_restarts_under_load_lose_nothing() {
    let seed = Dice::seed_or(17);
    let plan = StormPlan {
        seed,
        replicas: 3,
        clients: 24,
        long: 8,
        lasts: Duration::from_secs(number("TOLLWAY_RESTART_SECONDS", 12)),
        faults: Faults {
            terminate_ms: (500, 1_500),
            ..Faults::default()
        },
        variables: grace(),
        ..StormPlan::default()
    };
    let storm = Storm::gather(Place::new(Books::Postgres).await, plan).await;
    storm.rage().await;
    let calm = storm.calm().await;
    println!("seed {seed}: {:?}, {:?}", calm.outcomes, calm.report.totals);
    let totals = &calm.expect_balanced().totals;
    assert_eq!((totals.lost, totals.requests_at_risk), (0, 0), "{totals:?}");
    assert!(calm.count(Outcome::Stopped) > 0, "{:?}", calm.outcomes);
}
