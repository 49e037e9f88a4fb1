//! A long soak with everything that goes wrong mixed in: memory stays flat, holds do not pile up, the books balance.

use std::time::{Duration, Instant};

use tests::{Books, Dice, Faults, Place, Storm, StormPlan};

use super::number;

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A process that warms up grows; only what comes after this share of the time counts.
const WARM_UP_SHARE: f64 = 0.4;
/// Growth of a long soak (ten minutes and more), in kilobytes a minute.
const SLOPE_MAX: f64 = 256.0;

/// Kilobytes a minute, by least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (at, kb) = (mean(|one| one.0), mean(|one| one.1));
    let both: f64 = samples.iter().map(|one| (one.0 - at) * (one.1 - kb)).sum();
    let square: f64 = samples.iter().map(|one| (one.0 - at).powi(2)).sum();
    both / square * 60.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soak_with_mixed_faults_stays_flat_and_balances() {
    let seed = Dice::seed_or(97);
    let seconds = number("TOLLWAY_SOAK_SECONDS", 12);
    let lasts = Duration::from_secs(seconds);
    let long = seconds > 60;
    let plan = StormPlan {
        seed,
        replicas: 3,
        clients: 24,
        long: 6,
        lasts,
        faults: Faults {
            kills: usize::MAX,
            kill_ms: if long {
                (5_000, 40_000)
            } else {
                (2_000, 5_000)
            },
            terminate_ms: if long {
                (10_000, 60_000)
            } else {
                (3_000, 6_000)
            },
            freeze: long,
            spare_first: true,
        },
        variables: vec![("TOLLWAY_SHUTDOWN_GRACE_SECONDS".to_owned(), "1".to_owned())],
        ..StormPlan::default()
    };
    let storm = Storm::gather(Place::new(Books::Postgres).await, plan).await;
    let begun = Instant::now();
    let mut samples: Vec<(f64, f64)> = Vec::new();
    let look = async {
        loop {
            // tidy: sleeps because memory is looked at again and again.
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(kb) = storm.fleet.resident_kb().first() {
                samples.push((begun.elapsed().as_secs_f64(), *kb as f64));
            }
        }
    };
    tokio::select! {
        () = storm.rage() => {}
        () = look => {}
    }
    let over = Instant::now();
    let calm = storm.calm().await;
    let from = seconds as f64 * WARM_UP_SHARE;
    samples.retain(|(at, _)| *at > from);
    let (first, last) = (samples.first(), samples.last());
    println!(
        "seed {seed}, {seconds} s: {} kills, {:?}\n\
         resident memory {first:?} to {last:?} (s, kB), {:.1} kB a minute\n\
         longest request {:?}, all free and closed {:?} after the end\n{:#?}",
        calm.kills,
        calm.outcomes,
        slope(&samples),
        calm.longest,
        over.elapsed(),
        calm.report.totals,
    );
    let totals = &calm.expect_balanced().totals;
    assert_eq!(totals.acknowledged_lost, 0);
    assert!(totals.lost <= totals.at_risk);
    assert!(calm.kills > 0);
    if seconds >= 600 {
        assert!(slope(&samples) < SLOPE_MAX, "{samples:?}");
    }
}
