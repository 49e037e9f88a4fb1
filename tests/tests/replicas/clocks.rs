//! Wall clocks that jump an hour back and forth under running gateways change nothing.

use std::{fs, path::PathBuf, time::Duration};

use auditor::{Database, Outcome};
use tempfile::TempDir;
use tests::{Books, Dice, Place, Storm, StormPlan};

use super::number;

/// Between two jumps.
const JUMP_EVERY: Duration = Duration::from_millis(1_200);

/// libfaketime, from the package `faketime`.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let found = folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.is_file());
    found.expect("the package faketime is missing: `apt-get install -y faketime`")
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_jump_an_hour_change_nothing() {
    let seed = Dice::seed_or(83);
    let folder = TempDir::new().unwrap();
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let plan = StormPlan {
        seed,
        clients: 24,
        lasts: Duration::from_secs(number("TOLLWAY_CLOCK_SECONDS", 14)),
        variables: vec![
            variable("LD_PRELOAD", library().to_str().unwrap()),
            variable("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            variable("FAKETIME_NO_CACHE", "1"),
            // Steps of NTP, like those of an operator, do not touch the monotonic clock.
            variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            variable("NO_FAKE_STAT", "1"),
        ],
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
