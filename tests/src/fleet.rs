//! Several gateways as processes on one database, which come and go while clients ask any of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use auditor::Database;
use reqwest::Client;

use crate::{Dice, Launch, Program, Remote};

/// A process that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Unlike that of any other process, also of one that it replaces.
    pub name: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// One place in the fleet; empty while its process is being replaced.
#[derive(Default)]
struct Slot {
    running: Mutex<Option<(Arc<Target>, Program)>>,
    starts: AtomicU32,
    /// Nobody new is sent there.
    shunned: AtomicBool,
}

/// The processes.
pub struct Fleet {
    launch: Launch,
    slots: Vec<Slot>,
    /// What all clients share.
    pub client: Client,
}

impl Fleet {
    /// Starts so many, one after the other.
    pub async fn start(launch: Launch, count: usize) -> Arc<Self> {
        let fleet = Arc::new(Self {
            launch,
            slots: (0..count).map(|_| Slot::default()).collect(),
            client: Remote::new(([127, 0, 0, 1], 0).into()).client,
        });
        for slot in 0..count {
            fleet.fill(slot).await;
        }
        fleet
    }

    /// How many places there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Where the processes log, if they do.
    #[must_use]
    pub fn log(&self) -> Option<&PathBuf> {
        self.launch.log.as_ref()
    }

    /// Starts a process in an empty place. Its name is its host's name in the books; `{slot}` in
    /// its variables is the number of its place.
    ///
    /// # Panics
    /// It does not start.
    pub async fn fill(&self, slot: usize) -> Arc<Target> {
        let place = &self.slots[slot];
        let start = place.starts.fetch_add(1, Ordering::Relaxed);
        let name = format!("replica-{slot}-{start}");
        let mut launch = self.launch.clone();
        for (_, value) in &mut launch.variables {
            *value = value.replace("{slot}", &slot.to_string());
        }
        launch.variables.push(("HOSTNAME".into(), name.clone()));
        let program = tokio::task::spawn_blocking(move || Program::launch(&launch))
            .await
            .unwrap();
        let target = Arc::new(Target {
            name,
            addr: program.addr(),
        });
        *lock(&place.running) = Some((Arc::clone(&target), program));
        target
    }

    /// Freezes a place's process; nobody new is sent there.
    pub fn freeze(&self, slot: usize) {
        self.slots[slot].shunned.store(true, Ordering::Relaxed);
        self.signal(slot, "STOP");
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self, slot: usize) {
        self.signal(slot, "CONT");
        self.slots[slot].shunned.store(false, Ordering::Relaxed);
    }

    /// Any process that runs and is not frozen.
    pub fn any(&self, dice: &mut Dice) -> Option<Arc<Target>> {
        let running: Vec<_> = self.targets().collect();
        if running.is_empty() {
            return None;
        }
        Some(Arc::clone(dice.one_of(&running)))
    }

    /// The process in a place, if it runs.
    #[must_use]
    pub fn target(&self, slot: usize) -> Option<Arc<Target>> {
        let running = lock(&self.slots[slot].running);
        running.as_ref().map(|(target, _)| Arc::clone(target))
    }

    /// The processes that run and are not frozen.
    pub fn targets(&self) -> impl Iterator<Item = Arc<Target>> {
        let asked = |slot: &&Slot| !slot.shunned.load(Ordering::Relaxed);
        self.slots.iter().filter(asked).filter_map(|slot| {
            lock(&slot.running)
                .as_ref()
                .map(|(target, _)| Arc::clone(target))
        })
    }

    /// Sends a signal to a place's process.
    pub fn signal(&self, slot: usize, name: &str) {
        if let Some((_, program)) = &*lock(&self.slots[slot].running) {
            program.signal(name);
        }
    }

    /// The resident memory of every process, in kilobytes.
    #[must_use]
    pub fn resident_kb(&self) -> Vec<u64> {
        let of = |program: &Program| {
            let text = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).ok()?;
            let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        self.slots
            .iter()
            .filter_map(|slot| of(&lock(&slot.running).as_ref()?.1))
            .collect()
    }

    /// Kills a place's process as `kill -9` does; which one that was.
    pub async fn kill(&self, slot: usize) -> Option<Arc<Target>> {
        let (target, program) = self.take(slot)?;
        tokio::task::spawn_blocking(|| program.kill())
            .await
            .unwrap();
        Some(target)
    }

    /// Stops a place's process with SIGTERM; which one that was.
    ///
    /// # Panics
    /// It says that it did not write everything.
    pub async fn terminate(&self, slot: usize) -> Option<Arc<Target>> {
        let (target, program) = self.take(slot)?;
        let (status, printed) = tokio::task::spawn_blocking(|| program.terminate())
            .await
            .unwrap();
        assert!(status.success(), "{} {status}: {printed}", target.name);
        Some(target)
    }

    /// Stops all that run, at once, in order.
    pub async fn terminate_all(&self) {
        let all = (0..self.len()).map(|slot| self.terminate(slot));
        futures_util::future::join_all(all).await;
    }

    fn take(&self, slot: usize) -> Option<(Arc<Target>, Program)> {
        lock(&self.slots[slot].running).take()
    }
}

/// What the books say of processes: their states by their names.
///
/// # Panics
/// The books cannot be read.
pub async fn replica_states(database_url: &str) -> BTreeMap<String, String> {
    let mut database = Database::open(database_url).await.unwrap();
    let replicas = database.replicas().await.unwrap();
    replicas
        .into_iter()
        .map(|replica| (replica.host, replica.state))
        .collect()
}

/// Looks again and again, until it is dropped, whether grants, balances and leases agree in one
/// snapshot; how often it looked.
///
/// # Panics
/// They do not.
pub async fn grants_hold(database_url: String, every: Duration, looks: Arc<AtomicU32>) {
    let mut database = Database::open(&database_url).await.unwrap();
    loop {
        let books = database.books().await.unwrap();
        assert!(books.grants_are_the_balance(), "{books:#?}");
        looks.fetch_add(1, Ordering::Relaxed);
        // tidy: sleeps because it looks again and again at what must hold at any time.
        tokio::time::sleep(every).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
