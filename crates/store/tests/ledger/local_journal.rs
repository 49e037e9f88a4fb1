//! The local journal: what a dead process had written down is booked before anything else, exactly once.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{Capture, End, Permit, ReplicaId, RequestFacts, Reserved, Settlement, Timings};
use store::{
    CreatedKey, KeyRecord, Ledger, LedgerOptions, NoPermit, OpenOptions, Page, Store, StoreError,
    StoreUrl,
};
use tokens::UsageSource;

use crate::world::{
    World, checkpoint, eventually, flushed, hold_from, n, on_both, quick, settlement, soon, usage,
};

/// Settlements wait for ever in memory, and nobody is reaped.
fn never_writes(folder: &Path) -> LedgerOptions {
    LedgerOptions {
        linger: Duration::from_secs(3600),
        lease_ttl: Duration::from_secs(3600),
        poll: Duration::from_secs(3600),
        chores: Duration::from_secs(3600),
        ..with(folder)
    }
}

fn with(folder: &Path) -> LedgerOptions {
    LedgerOptions {
        local_journal: Some(folder.to_owned()),
        ..quick()
    }
}

/// A gateway's life on these books, with a local journal.
struct Life {
    ledger: Ledger,
    record: Arc<KeyRecord>,
}

/// A request that is running in it.
struct Running {
    facts: Arc<RequestFacts>,
    held: Reserved,
    permit: Permit,
}

impl Life {
    async fn begin(store: &Store, key: &CreatedKey, options: LedgerOptions) -> Self {
        let ledger = start(store, options).await;
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        Self { ledger, record }
    }

    async fn request(&self, world: &World, hold: i64) -> Running {
        let permit = self.ledger.reserve().unwrap();
        let held = hold_from(&self.ledger, &self.record.path, n(hold), soon())
            .await
            .unwrap();
        let facts = world.facts(&self.record);
        permit
            .local()
            .unwrap()
            .started(&facts, held.replica())
            .unwrap();
        Running {
            facts,
            held,
            permit,
        }
    }

    /// Dies as with kill -9: nothing is settled, written or given back.
    fn die(self, running: impl IntoIterator<Item = Running>) {
        for one in running {
            std::mem::forget(one.held);
        }
    }
}

impl Running {
    fn delivered(&self, cost: i64) {
        let so_far = so_far(&self.facts, self.held.replica(), cost);
        self.permit.local().unwrap().progressed(&so_far);
    }

    fn settle(self, charged: i64) {
        let settlement = settlement(&self.facts, self.held.replica(), charged, 0);
        self.permit.send(settlement);
        self.held.spend(n(charged));
    }
}

/// Starts once the one before has let go of the folder.
async fn start(store: &Store, options: LedgerOptions) -> Ledger {
    attempt(store, options).await.unwrap()
}

/// What a start comes to, once the one before has let go of the folder.
async fn attempt(store: &Store, options: LedgerOptions) -> Result<Ledger, StoreError> {
    let deadline = soon();
    loop {
        match Ledger::start(store.clone(), options.clone()).await {
            Err(StoreError::LocalJournalInUse { .. }) if Instant::now() < deadline => {
                // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            result => return result,
        }
    }
}

fn so_far(facts: &Arc<RequestFacts>, lease: ReplicaId, cost: i64) -> Settlement {
    Settlement {
        facts: Arc::clone(facts),
        lease,
        checkpointed: true,
        end: End::GatewayLost,
        usage: usage(cost),
        source: UsageSource::Counted,
        raw_usage: None,
        counted: None,
        provider_cost: None,
        capture: Capture {
            cost: n(cost),
            charged: n(cost),
            ..Capture::default()
        },
        timings: Timings {
            duration_us: 5,
            first_token_us: Some(1),
        },
    }
}

fn segments(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == ending))
        .collect();
    found.sort();
    found
}

/// The end and the charge of a request, where it has one.
async fn charge(world: &World, facts: &RequestFacts) -> Option<(End, i64, i64)> {
    let charge = world.store.charge(facts.account_id, facts.request_id);
    let charge = charge.await.unwrap()?;
    Some((charge.end, charge.cost.nanos(), charge.charged.nanos()))
}

async fn what_was_settled_and_delivered_is_booked_at_the_start(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(1000, Some(900)).await;
    let life = Life::begin(&world.store, &key, never_writes(folder.path())).await;
    let [ended, ran, only] = [100, 200, 300].map(|hold| life.request(&world, hold));
    let (ended, ran, only) = (ended.await, ran.await, only.await);
    let facts = [&ended, &ran, &only].map(|one| Arc::clone(&one.facts));
    ended.settle(40);
    ran.delivered(7);
    ran.delivered(12);
    life.die([ran, only]);
    // The leases are back and all is booked when the next life begins, not some time after.
    let life = Life::begin(&world.store, &key, never_writes(folder.path())).await;
    assert_eq!(world.budget(key.account.id.uuid()).await, (948, 0, 52));
    assert_eq!(world.budget(key.key.id.uuid()).await, (848, 0, 52));
    let booked = [
        charge(&world, &facts[0]).await,
        charge(&world, &facts[1]).await,
        charge(&world, &facts[2]).await,
    ];
    let expected = [
        Some((End::Completed, 40, 40)),
        Some((End::GatewayLost, 12, 12)),
        None,
    ];
    assert_eq!(booked, expected);
    assert!(world.balanced().await.house_losses.is_empty());
    // And nothing of it is booked again.
    life.die([]);
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    assert_eq!(world.budget(key.account.id.uuid()).await, (948, 0, 52));
    assert!(life.ledger.shutdown(Duration::from_secs(10)).await);
}

async fn a_replay_of_what_is_booked_changes_nothing(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(1000, None).await;
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    let (one, other) = (
        life.request(&world, 100).await,
        life.request(&world, 100).await,
    );
    one.settle(40);
    eventually("it is booked", || async {
        world.number("SELECT COUNT(*) FROM charges").await == 1
    })
    .await;
    other.delivered(9);
    life.die([other]);
    let kept = tempfile::tempdir().unwrap();
    for path in segments(folder.path(), "journal") {
        fs::copy(&path, kept.path().join(path.file_name().unwrap())).unwrap();
    }
    // The same file again and again, as after a crash in the middle of the start.
    for _ in 0..3 {
        let life = Life::begin(&world.store, &key, with(folder.path())).await;
        assert_eq!(world.total(key.account.id).await, 951);
        assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 2);
        life.die([]);
        eventually("the folder is free", || async {
            let lock = fs::File::open(folder.path().join("lock")).unwrap();
            lock.try_lock().is_ok()
        })
        .await;
        for path in segments(kept.path(), "journal") {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    assert!(world.balanced().await.house_losses.is_empty());
}

/// The reaper was quicker: it has charged the checkpoint of a request, and its lease is back.
async fn reaped(world: &World, folder: &Path, credits: i64) -> (CreatedKey, Arc<RequestFacts>) {
    let key = world.key(credits, None).await;
    let options = LedgerOptions {
        local_journal: Some(folder.to_owned()),
        ..quick()
    };
    let life = Life::begin(&world.store, &key, options).await;
    let one = life.request(world, 40).await;
    let (facts, lease) = (Arc::clone(&one.facts), one.held.replica());
    life.ledger.checkpoint(checkpoint(&facts, lease, 15));
    eventually("the checkpoint is written", || async {
        world.number("SELECT COUNT(*) FROM checkpoints").await == 1
    })
    .await;
    one.delivered(22);
    life.die([one]);
    let other = world.other_ledger(quick()).await;
    eventually("the dead replica is reaped", || async {
        world
            .number("SELECT COUNT(*) FROM replicas WHERE state = 'reaped'")
            .await
            == 1
    })
    .await;
    assert_eq!(
        charge(world, &facts).await,
        Some((End::GatewayLost, 15, 15))
    );
    assert!(other.shutdown(Duration::from_secs(10)).await);
    (key, facts)
}

async fn after_the_reaper_the_difference_is_collected(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let (key, facts) = reaped(&world, folder.path(), 100).await;
    for _ in 0..2 {
        let life = Life::begin(&world.store, &key, with(folder.path())).await;
        assert_eq!(world.total(key.account.id).await, 78);
        life.die([]);
    }
    let page = world.store.entries(key.account.id, Page::default());
    let late = page.await.unwrap().data.remove(0);
    assert_eq!((late.kind, late.amount), ("late_charge", n(-7)));
    assert!(
        late.reference
            .unwrap()
            .contains(&facts.request_id.to_string())
    );
    assert!(world.balanced().await.house_losses.is_empty());
}

async fn a_checkpoint_ahead_of_the_journal_is_charged(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(100, None).await;
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    let one = life.request(&world, 40).await;
    let facts = Arc::clone(&one.facts);
    one.delivered(9);
    life.ledger
        .checkpoint(checkpoint(&facts, one.held.replica(), 15));
    eventually("the checkpoint is written", || async {
        world.number("SELECT COUNT(*) FROM checkpoints").await == 1
    })
    .await;
    life.die([one]);
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    assert_eq!(
        charge(&world, &facts).await,
        Some((End::GatewayLost, 15, 15))
    );
    assert_eq!(world.budget(key.account.id.uuid()).await, (85, 0, 15));
    life.die([]);
    world.balanced().await;
}

async fn damage_is_kept_and_costs_only_what_it_hit(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(1000, None).await;
    let life = Life::begin(&world.store, &key, never_writes(folder.path())).await;
    let (hit, whole) = (
        life.request(&world, 100).await,
        life.request(&world, 100).await,
    );
    let facts = [&hit, &whole].map(|one| Arc::clone(&one.facts));
    hit.delivered(11);
    let path = segments(folder.path(), "journal").remove(0);
    let from = fs::metadata(&path).unwrap().len();
    hit.settle(40);
    let to = fs::metadata(&path).unwrap().len();
    whole.settle(30);
    life.die([]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::try_from(from.midpoint(to)).unwrap()] ^= 0x20;
    // And the last record was not finished.
    bytes.extend([0xF5, b'T']);
    fs::write(&path, &bytes).unwrap();
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    assert_eq!(
        charge(&world, &facts[0]).await,
        Some((End::GatewayLost, 11, 11))
    );
    assert_eq!(
        charge(&world, &facts[1]).await,
        Some((End::Completed, 30, 30))
    );
    assert_eq!(segments(folder.path(), "damaged").len(), 1);
    life.die([]);
    world.balanced().await;
}

async fn one_folder_is_for_one_process_and_one_database(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(100, None).await;
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    let second = Ledger::start(world.store.clone(), with(folder.path())).await;
    let told = second.unwrap_err();
    assert!(
        matches!(told, StoreError::LocalJournalInUse { .. }),
        "{told}"
    );
    assert!(life.ledger.shutdown(Duration::from_secs(10)).await);
    drop(life);
    let other = World::sqlite().await;
    let refused = attempt(&other.store, with(folder.path())).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("another database"), "{told}");
    assert_eq!(
        segments(folder.path(), "journal").len(),
        1,
        "nothing is lost"
    );
}

async fn what_could_not_be_written_at_the_close_is_booked_by_the_next_start(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(100, None).await;
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    let one = life.request(&world, 40).await;
    let facts = Arc::clone(&one.facts);
    let away = world.hold_charges().await;
    one.settle(20);
    assert!(!life.ledger.shutdown(Duration::from_millis(10)).await);
    drop(life);
    away.let_go().await;
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    assert_eq!(charge(&world, &facts).await, Some((End::Completed, 20, 20)));
    assert_eq!(world.budget(key.account.id.uuid()).await, (80, 0, 20));
    life.die([]);
    assert!(world.balanced().await.house_losses.is_empty());
}

async fn without_the_books_nothing_is_forgotten_at_the_start(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(100, None).await;
    let life = Life::begin(&world.store, &key, never_writes(folder.path())).await;
    let one = life.request(&world, 40).await;
    let facts = Arc::clone(&one.facts);
    one.settle(20);
    life.die([]);
    let impatient = OpenOptions {
        timeout: Duration::from_millis(300),
        leave_dead: true,
        ..OpenOptions::default()
    };
    let World { url, store, .. } = &world;
    let url = StoreUrl::parse(url).unwrap();
    let own = world.is_postgres();
    let store = if own {
        Store::open(&url, impatient).await.unwrap()
    } else {
        store.clone()
    };
    let away = world.hold_charges().await;
    let before = segments(folder.path(), "journal");
    let failed = attempt(&store, with(folder.path())).await.unwrap_err();
    assert!(failed.is_unavailable(), "{failed}");
    assert_eq!(segments(folder.path(), "journal"), before);
    away.let_go().await;
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    assert_eq!(charge(&world, &facts).await, Some((End::Completed, 20, 20)));
    life.die([]);
}

async fn no_permit_is_given_while_it_cannot_be_written(world: World) {
    let folder = tempfile::tempdir().unwrap();
    let key = world.key(100, None).await;
    let life = Life::begin(&world.store, &key, with(folder.path())).await;
    assert_eq!(life.ledger.stats().local_journal_failing, Some(false));
    // A folder in the place of the next segment: what is written cannot go on there.
    let one = life.request(&world, 10).await;
    let path = segments(folder.path(), "journal").remove(0);
    let next = path.with_file_name("00000000000000000002.journal");
    fs::create_dir(&next).unwrap();
    let mut big = settlement(&one.facts, one.held.replica(), 5, 0);
    big.raw_usage = Some("x".repeat(60 * 1024).into());
    let local = one.permit.local().unwrap();
    while life.ledger.stats().local_journal_failing == Some(false) {
        local.progressed(&big);
    }
    assert_eq!(life.ledger.reserve().unwrap_err(), NoPermit::NotRecorded);
    fs::remove_dir(&next).unwrap();
    eventually("it is written again", || async {
        life.ledger.stats().local_journal_failing == Some(false)
    })
    .await;
    let _ = life.ledger.reserve().unwrap();
    one.settle(5);
    flushed(&life.ledger).await;
    assert_eq!(world.total(key.account.id).await, 95);
    assert!(life.ledger.shutdown(Duration::from_secs(10)).await);
}

on_both!(
    what_was_settled_and_delivered_is_booked_at_the_start,
    a_replay_of_what_is_booked_changes_nothing,
    after_the_reaper_the_difference_is_collected,
    a_checkpoint_ahead_of_the_journal_is_charged,
    damage_is_kept_and_costs_only_what_it_hit,
    one_folder_is_for_one_process_and_one_database,
    what_could_not_be_written_at_the_close_is_booked_by_the_next_start,
    without_the_books_nothing_is_forgotten_at_the_start,
    no_permit_is_given_while_it_cannot_be_written,
);
