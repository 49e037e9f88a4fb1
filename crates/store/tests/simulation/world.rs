//! One run: a database, replicas, clients, an operator, and the fate that a seed has for them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use billing::{AccountId, Credits, Price, Rates, rules::EntryKind};
use jiff::Timestamp;
use store::{
    AccountPatch, CreatedKey, NewCredits, NewKey, Store,
    simulation::{Database, Node, simulate_ids, simulate_wall},
};
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use crate::{
    dice::Dice,
    ledgers::{MARGIN, Replica, TTL},
    operator::operator,
    oracle::Oracle,
    sky::{JUDGE, Sky},
    trace::{Trace, pass},
};

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) sky: Arc<Sky>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) oracle: Oracle,
    pub(crate) price: Arc<Price>,
    /// Clients of each replica.
    pub(crate) clients: u32,
    seed: u64,
    keys: Mutex<Vec<KnownKey>>,
    expiring: Mutex<BTreeSet<AccountId>>,
    places: Mutex<Vec<Option<Replica>>>,
    runs: AtomicU32,
    over: AtomicBool,
}

#[derive(Clone, Debug)]
struct KnownKey {
    key: CreatedKey,
    /// Nobody uses it any more, after a while.
    revoked: bool,
}

/// How a run came out.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) hash: u64,
    pub(crate) lines: u64,
    pub(crate) faults: Vec<String>,
}

/// Runs a seed, on a runtime of this thread whose time is simulated.
pub(crate) fn simulate(seed: u64, print: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(run(seed, print));
    drop(runtime);
    simulate_ids(None);
    simulate_wall(None);
    outcome
}

async fn run(seed: u64, print: bool) -> Outcome {
    let mut dice = Dice::new(seed);
    let trace = Arc::new(Trace::new(print));
    let sky = Arc::new(Sky::new(dice.fork(), Arc::clone(&trace)));
    let (wall, ids) = (Arc::clone(&sky), Arc::clone(&sky));
    let mut bits = dice.fork();
    simulate_wall(Some(Box::new(move || {
        Timestamp::from_microsecond(wall.wall_us()).unwrap()
    })));
    simulate_ids(Some(Box::new(move || id(&ids, &mut bits))));
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path(), Arc::clone(&sky) as _).unwrap();
    let one = Credits::from_nanos(1_000_000);
    let world = Arc::new(World {
        database,
        sky,
        trace,
        oracle: Oracle::default(),
        price: Arc::new(Price::new(Rates::plain(one, one), Vec::new()).unwrap()),
        clients: u32::try_from(dice.of(2..5)).unwrap(),
        seed,
        keys: Mutex::default(),
        expiring: Mutex::default(),
        places: Mutex::default(),
        runs: AtomicU32::new(JUDGE + 1),
        over: AtomicBool::new(false),
    });
    let judge = Store::simulated(&Node::new(&world.database, JUDGE))
        .await
        .unwrap();
    world.furnish(&judge, &mut dice).await;
    world.live(&mut dice).await;
    world.end().await;
    world.oracle.conclude(&world);
    let audit = judge.audit().await.unwrap();
    for check in audit.checks.iter().filter(|check| !check.ok) {
        let (says, broken) = (check.says, &check.first_broken);
        world.oracle.blame(format!("the audit: {says}: {broken:?}"));
    }
    let (requests, worth) = world.oracle.delivered_in_all();
    let accounts = world.oracle.accounts_used();
    world.trace.say(format!(
        "{requests} requests of {accounts} accounts, worth {worth}"
    ));
    let (hash, lines) = world.trace.end();
    let faults = world.oracle.faults();
    Outcome {
        hash,
        lines,
        faults,
    }
}

/// An id as version 7 has it, of the simulated time and the seed's bits.
fn id(sky: &Sky, bits: &mut Dice) -> Uuid {
    let ms = u64::try_from(sky.wall_us() / 1000).unwrap();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&bits.next().to_be_bytes());
    random[8..].copy_from_slice(&bits.next().to_be_bytes()[..2]);
    uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
}

impl World {
    pub(crate) fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(crate) fn next_run(&self) -> u32 {
        self.runs.fetch_add(1, Ordering::SeqCst)
    }

    /// Dice of somebody's own, whoever threw before.
    pub(crate) fn fork(&self, salt: u64) -> Dice {
        Dice::new(self.seed.wrapping_mul(0x5851_F42D_4C95_7F2D) ^ salt).fork()
    }

    pub(crate) fn new_id(&self) -> Uuid {
        store::simulation::new_id()
    }

    /// A key for a request; now and then one that was revoked.
    pub(crate) fn a_key(&self, dice: &mut Dice) -> Option<(usize, String)> {
        let keys = self.keys.lock().unwrap();
        let number = usize::try_from(dice.next()).unwrap() % keys.len();
        let known = &keys[number];
        (!known.revoked || dice.chance(2000))
            .then(|| (number, known.key.secret.expose().to_owned()))
    }

    pub(crate) fn a_key_to_revoke(&self, dice: &mut Dice) -> Option<(usize, CreatedKey)> {
        let mut keys = self.keys.lock().unwrap();
        let number = usize::try_from(dice.next()).unwrap() % keys.len();
        let known = &mut keys[number];
        if std::mem::replace(&mut known.revoked, true) {
            return None;
        }
        Some((number, known.key.clone()))
    }

    pub(crate) fn a_limited_key(&self, dice: &mut Dice) -> Option<(usize, CreatedKey)> {
        let keys = self.keys.lock().unwrap();
        let limited: Vec<_> = keys
            .iter()
            .enumerate()
            .filter(|(_, known)| known.key.key.limit.is_some())
            .collect();
        if limited.is_empty() {
            return None;
        }
        let (number, known) = *dice.pick(&limited);
        Some((number, known.key.clone()))
    }

    /// An account, and whether its credits may expire.
    pub(crate) fn an_account(&self, dice: &mut Dice) -> (AccountId, bool) {
        let keys = self.keys.lock().unwrap();
        let account = dice.pick(&keys).key.key.account_id;
        (account, self.has_expiring_grants(account))
    }

    pub(crate) fn account_of(&self, key: usize) -> AccountId {
        self.keys.lock().unwrap()[key].key.key.account_id
    }

    pub(crate) fn has_expiring_grants(&self, account: AccountId) -> bool {
        self.expiring.lock().unwrap().contains(&account)
    }

    pub(crate) fn add_key(&self, key: CreatedKey) {
        let known = KnownKey {
            key,
            revoked: false,
        };
        self.keys.lock().unwrap().push(known);
    }

    pub(crate) fn for_each_replica(&self, mut visit: impl FnMut(&Replica)) {
        for replica in self.places.lock().unwrap().iter().flatten() {
            visit(replica);
        }
    }

    /// Since when somebody could have seen that a replica died at `at`.
    pub(crate) fn watched_since(&self, at: Instant) -> Option<Instant> {
        let places = self.places.lock().unwrap();
        let living = places
            .iter()
            .flatten()
            .filter(|replica| !replica.node.is_frozen());
        living.map(|replica| replica.since.max(at)).min()
    }

    /// Accounts of every kind: rich, poor, with limits, with credits that expire, with an overdraft.
    async fn furnish(&self, judge: &Store, dice: &mut Dice) {
        let text = self.price.to_json().unwrap();
        let prices = [(self.price.id().unwrap(), "acme", "m", text.as_str())];
        judge.record_prices(&prices).await.unwrap();
        let kinds = [
            (1_000_000, None),
            (dice.of(100..600), None),
            (dice.of(500..4000), None),
            (50_000, Some(dice.of(200..3000))),
            (dice.of(1..300), None),
        ];
        for (number, (credits, limit)) in kinds.into_iter().enumerate() {
            let new = NewKey {
                name: format!("key {number}"),
                credits: Some(Credits::from_nanos(credits)),
                limit: limit.map(Credits::from_nanos),
                ..NewKey::default()
            };
            let key = judge.create_key(new).await.unwrap();
            let account = key.key.account_id;
            self.oracle.credited(account, credits);
            if number == 2 {
                self.expiring.lock().unwrap().insert(account);
                let us = self.sky.wall_us() + dice.of(2_000_000..15_000_000);
                let trial = NewCredits {
                    amount: Credits::from_nanos(2000),
                    kind: EntryKind::Trial,
                    expires_at: Some(Timestamp::from_microsecond(us).unwrap()),
                    reference: None,
                    note: None,
                };
                judge.add_credits(account, trial, None).await.unwrap();
                self.oracle.credited(account, 2000);
            }
            if number == 4 {
                let patch = AccountPatch {
                    overdraft: Some(Credits::from_nanos(dice.of(100..800))),
                    ..AccountPatch::default()
                };
                judge.update_account(account, patch).await.unwrap();
            }
            self.add_key(key);
        }
    }

    /// The run itself: everybody at work, while fate looks in now and then.
    async fn live(self: &Arc<Self>, dice: &mut Dice) {
        let places = u32::try_from(dice.of(1..5)).unwrap();
        for place in 0..places {
            let replica = Replica::start(self, place).await;
            self.places.lock().unwrap().push(Some(replica));
        }
        let mut others = JoinSet::new();
        others.spawn(operator(Arc::clone(self), dice.fork()));
        others.spawn({
            let world = Arc::clone(self);
            async move {
                while !world.over() {
                    pass(Duration::from_millis(250)).await;
                    world.oracle.watch(&world);
                }
            }
        });
        let ends = Instant::now() + dice.ms(15_000..30_000);
        // Some runs are quiet, some have no rest.
        let rest = *dice.pick(&[1500, 4000, 9000]);
        while Instant::now() < ends {
            let pause = dice.ms(100..rest);
            pass(pause).await;
            let place = usize::try_from(dice.of(0..i64::from(places))).unwrap();
            self.strike(place, dice).await;
        }
        self.over.store(true, Ordering::SeqCst);
        self.sky.clear();
        self.trace.say("it is over");
        while let Some(ended) = others.join_next().await {
            ended.unwrap();
        }
    }

    /// Something happens to a replica, to the database or to the clock.
    async fn strike(self: &Arc<Self>, place: usize, dice: &mut Dice) {
        match dice.of(0..12) {
            0..3 => {
                let Some(replica) = self.take(place) else {
                    return;
                };
                replica.kill(self);
                self.replace(place, dice.ms(50..6000)).await;
            }
            3 => {
                let Some(replica) = self.take(place) else {
                    return;
                };
                replica.stop(self).await;
                self.replace(place, dice.ms(50..2000)).await;
            }
            4..6 => {
                let frozen = dice.ms(200..9000);
                let node = {
                    let places = self.places.lock().unwrap();
                    places
                        .get(place)
                        .and_then(Option::as_ref)
                        .map(|r| r.node.clone())
                };
                let Some(node) = node else { return };
                self.trace.say(format!("{node:?} is frozen for {frozen:?}"));
                self.sky.trouble(frozen);
                node.freeze();
                pass(frozen).await;
                node.thaw();
                self.trace.say(format!("{node:?} goes on"));
            }
            6 => self.sky.outage(dice.ms(50..6000)),
            7..9 => {
                let by = Duration::from_millis(u64::try_from(dice.of(500..3_600_000)).unwrap());
                self.sky.jump(by, dice.chance(5000));
            }
            // A quiet while.
            _ => {}
        }
    }

    fn take(&self, place: usize) -> Option<Replica> {
        self.places
            .lock()
            .unwrap()
            .get_mut(place)
            .and_then(Option::take)
    }

    async fn replace(self: &Arc<Self>, place: usize, after: Duration) {
        pass(after).await;
        let replica = Replica::start(self, u32::try_from(place).unwrap()).await;
        self.places.lock().unwrap()[place] = Some(replica);
    }

    /// Lets the dead be reaped and stops the living.
    async fn end(self: &Arc<Self>) {
        pass(TTL + MARGIN * 2 + Duration::from_secs(4)).await;
        self.oracle.watch(self);
        let places = self.places.lock().unwrap().len();
        for place in 0..places {
            if let Some(replica) = self.take(place) {
                replica.stop(self).await;
            }
        }
        // Whoever did not stop well is reaped by a last one.
        let last = Replica::start(self, 99).await;
        pass(TTL + MARGIN * 2 + Duration::from_secs(4)).await;
        last.stop(self).await;
    }
}
