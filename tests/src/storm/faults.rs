//! What goes wrong in a storm: processes are killed, stopped in order, and frozen past their leases.

use std::time::{Duration, Instant};

use auditor::Database;

use super::{Storm, lock};
use crate::Dice;

/// Between two looks at whether a dead process's leases are back.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Leases end ten seconds after the last heartbeat, are taken back two seconds after that, and
/// somebody looks for them every second; the rest is a busy machine.
const BACK_MAX: Duration = Duration::from_secs(10 + 2 + 1 + 17);
/// A frozen process sleeps longer than its leases live.
const FROZEN_MS: (u64, u64) = (13_500, 16_000);

/// How much goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// `kill -9`, so often; then the storm is over.
    pub kills: usize,
    /// Between two kills, in milliseconds: from, to.
    pub kill_ms: (u64, u64),
    /// Orderly stops and starts, between two of them in milliseconds; none for (0, 0).
    pub terminate_ms: (u64, u64),
    /// Whether processes are frozen past their leases.
    pub freeze: bool,
    /// Nothing happens to the first process.
    pub spare_first: bool,
}

/// A process that was killed.
#[derive(Clone, Debug)]
pub(super) struct Killed {
    pub(super) name: String,
    pub(super) at: Instant,
    /// Until what it had leased was back.
    pub(super) back: Option<Duration>,
}

/// Strikes until the storm is over.
pub(super) async fn strike(storm: &Storm, dice: &mut Dice) {
    let (mut one, mut two, mut three) = (dice.split(), dice.split(), dice.split());
    tokio::join!(
        kill(storm, &mut one),
        terminate(storm, &mut two),
        freeze(storm, &mut three),
        watch(storm),
    );
}

async fn kill(storm: &Storm, dice: &mut Dice) {
    let faults = &storm.plan.faults;
    for _ in 0..faults.kills {
        // tidy: sleeps because accidents happen at random times.
        tokio::time::sleep(dice.millis(faults.kill_ms.0, faults.kill_ms.1)).await;
        if storm.over() {
            return;
        }
        let slot = any_slot(storm, dice);
        let at = Instant::now();
        let Some(target) = storm.fleet.kill(slot).await else {
            continue;
        };
        lock(&storm.killed).push(Killed {
            name: target.name.clone(),
            at,
            back: None,
        });
        storm.fleet.fill(slot).await;
    }
    if faults.kills > 0 {
        storm.subside();
    }
}

async fn terminate(storm: &Storm, dice: &mut Dice) {
    let (from, to) = storm.plan.faults.terminate_ms;
    while to > 0 && !storm.over() {
        // tidy: sleeps because deployments happen at random times.
        tokio::time::sleep(dice.millis(from, to)).await;
        let slot = any_slot(storm, dice);
        if !storm.over() && storm.fleet.terminate(slot).await.is_some() {
            storm.fleet.fill(slot).await;
        }
    }
}

async fn freeze(storm: &Storm, dice: &mut Dice) {
    while storm.plan.faults.freeze && !storm.over() {
        // tidy: sleeps because machines freeze at random times.
        tokio::time::sleep(dice.millis(500, 3_000)).await;
        if storm.over() {
            return;
        }
        let slot = any_slot(storm, dice);
        storm.fleet.freeze(slot);
        // tidy: sleeps because the frozen one must sleep past its leases.
        tokio::time::sleep(dice.millis(FROZEN_MS.0, FROZEN_MS.1)).await;
        storm.fleet.thaw(slot);
    }
}

fn any_slot(storm: &Storm, dice: &mut Dice) -> usize {
    let spared = u64::from(storm.plan.faults.spare_first);
    let slots = u64::try_from(storm.fleet.len()).expect("few");
    usize::try_from(spared + dice.below(slots - spared)).expect("few")
}

/// Notes when the leases of killed processes are back, while the storm lasts.
async fn watch(storm: &Storm) {
    if storm.plan.faults.kills == 0 {
        return;
    }
    let mut database = Database::open(storm.database_url()).await.unwrap();
    while !storm.over() {
        look(storm, &mut database).await;
        // tidy: sleeps because it looks again for what comes by itself.
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until all are back.
pub(super) async fn all_are_back(storm: &Storm) {
    if storm.plan.faults.kills == 0 {
        return;
    }
    let mut database = Database::open(storm.database_url()).await.unwrap();
    loop {
        let waiting = look(storm, &mut database).await;
        if waiting == 0 {
            return;
        }
        // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks once; how many are still waited for.
async fn look(storm: &Storm, database: &mut Database) -> usize {
    let replicas = database.replicas().await.unwrap();
    let mut waiting = 0;
    for killed in lock(&storm.killed).iter_mut().filter(|k| k.back.is_none()) {
        let alive = |r: &&auditor::ReplicaRow| r.host == killed.name && r.state == "alive";
        if replicas.iter().find(alive).is_none() {
            killed.back = Some(killed.at.elapsed());
        } else {
            let waited = killed.at.elapsed();
            assert!(waited < BACK_MAX, "{} is not reaped", killed.name);
            waiting += 1;
        }
    }
    waiting
}
