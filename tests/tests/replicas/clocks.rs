//! Wall clocks that jump an hour back and forth under running gateways change nothing.

use std::{fs, time::Duration};

use auditor::{Database, Outcome};
use tempfile::TempDir;
use tests::{Books, Dice, Place, Storm, StormPlan, clock_of};

use super::number;

/// Between two jumps.
const JUMP_EVERY: Duration = Duration::from_millis(1_200);

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_jump_an_hour_change_nothing() {
    let seed = Dice::seed_or(83);
    let folder = TempDir::new().unwrap();
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let plan = StormPlan {
        seed,
        clients: 24,
        lasts: Duration::from_secs(number("TOLLWAY_CLOCK_SECONDS", 14)),
        variables: clock_of(&clock),
        ..StormPlan::default()
    };
    let storm = Storm::gather(Place::new(Books::Postgres).await, plan).await;
    let jumping = async {
        let next = folder.path().join("next");
        for hours in ["+1h", "-1h", "+0", "-1h", "+1h"].iter().cycle() {
            // tidy: sleeps because clocks jump now and then.
            tokio::time::sleep(JUMP_EVERY).await;
            fs::write(&next, hours).unwrap();
            fs::rename(&next, &clock).unwrap();
        }
    };
    tokio::select! {
        () = storm.rage() => {}
        () = jumping => {}
    }
    let mut database = Database::open(storm.database_url()).await.unwrap();
    let replicas = database.replicas().await.unwrap();
    drop(database);
    let calm = storm.calm().await;
    println!("seed {seed}: {:?}, {:?}", calm.outcomes, calm.report.totals);
    let totals = &calm.expect_balanced().totals;
    assert_eq!((totals.lost, totals.requests_at_risk), (0, 0), "{totals:?}");
    assert_eq!(replicas.len(), 4, "{replicas:?}");
    assert!(
        replicas.iter().all(|one| one.state == "alive"),
        "{replicas:?}"
    );
    assert!(calm.count(Outcome::Finished) > 50, "{:?}", calm.outcomes);
}
