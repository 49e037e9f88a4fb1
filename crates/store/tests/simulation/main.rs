//! The real ledger under simulation: one seed decides the whole of a run, its faults and its clocks.
//!
//! `TOLLWAY_SIM_SEED=7 cargo test -p store --test simulation` replays one seed and prints what
//! happened; `TOLLWAY_SIM_SEEDS=0..1000` runs a range.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the whole program is a test; its helpers are too"
)]

mod closing;
mod dice;
mod ledgers;
mod operator;
mod oracle;
mod request;
mod sky;
mod trace;
mod world;

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use world::simulate;

/// Seeds of a plain test run; the nightly form names more.
const SEEDS: Range<u64> = 0..200;
/// After how many seeds a long run says how far it is.
const REPORT_EVERY: u64 = 500;

#[test]
fn every_seed_keeps_the_books() {
    if let Ok(seed) = std::env::var("TOLLWAY_SIM_SEED") {
        let seed = seed.parse().expect("TOLLWAY_SIM_SEED is a number");
        let outcome = simulate(seed, true);
        assert!(
            outcome.faults.is_empty(),
            "seed {seed}: {:#?}",
            outcome.faults
        );
        return;
    }
    let seeds = match std::env::var("TOLLWAY_SIM_SEEDS") {
        Ok(text) => range(&text),
        Err(_) => SEEDS,
    };
    let started = Instant::now();
    let failed = run_all(&seeds);
    println!(
        "{} seeds in {:?}, {} failed",
        seeds.end - seeds.start,
        started.elapsed(),
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "replay with TOLLWAY_SIM_SEED: {failed:?}"
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut lines = 0;
    for seed in [1, 2, 3, 5, 8, 13, 21, 34] {
        let (first, second) = (simulate(seed, false), simulate(seed, false));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        lines += first.lines;
    }
    assert!(lines > 300, "nothing much happened: {lines} lines");
    assert_ne!(simulate(1, false).hash, simulate(2, false).hash);
}

fn range(text: &str) -> Range<u64> {
    let (from, to) = text.split_once("..").expect("TOLLWAY_SIM_SEEDS is a..b");
    from.parse().unwrap()..to.parse().unwrap()
}

/// Runs the seeds on all processors, a thread for each; the seeds that failed.
fn run_all(seeds: &Range<u64>) -> Vec<u64> {
    let next = &AtomicU64::new(seeds.start);
    let done = &AtomicU64::new(0);
    let mut failed: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = processors()
            .into_iter()
            .map(|processor| {
                scope.spawn(move || {
                    stay_on(&processor);
                    let mut failed = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return failed;
                        }
                        let outcome = simulate(seed, false);
                        if let Some(first) = outcome.faults.first() {
                            eprintln!("seed {seed}: {first}");
                            failed.push(seed);
                        }
                        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                        if done.is_multiple_of(REPORT_EVERY) {
                            eprintln!("{done} seeds done");
                        }
                    }
                })
            })
            .collect();
        let results = workers.into_iter().map(|worker| worker.join().unwrap());
        results.flatten().collect()
    });
    failed.sort_unstable();
    failed
}

/// The processors that this process may run on, each for itself.
fn processors() -> Vec<CpuSet> {
    let allowed = sched_getaffinity(None).unwrap();
    let each = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
    each.map(|processor| {
        let mut one = CpuSet::new();
        one.set(processor);
        one
    })
    .collect()
}

/// Keeps this thread, and those that it starts, on one processor. A run and its database take turns
/// statement by statement; on two processors each turn wakes a sleeping one, and that takes longer
/// than the work: two of them got through 2.0 seeds a second so, and each alone through 2.6.
fn stay_on(processor: &CpuSet) {
    sched_setaffinity(None, processor).unwrap();
}
