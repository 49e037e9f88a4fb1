//! The judge of a run: what was delivered, paid in and promised, known without the ledger, against what the ledger says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use billing::{AccountId, BudgetId, ReplicaId, RequestFacts, RequestId};
use store::Shortfall;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    ledgers::{MARGIN, TTL},
    world::World,
};

/// What was sent by a replica is in the database after so long, when all is well.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
/// A revocation is known everywhere after so long, when all is well.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);
/// A dead replica is reaped so long after its leases ended, when all is well.
const REAPED_WITHIN: Duration = Duration::from_secs(3);
/// More would only repeat it.
const FAULTS_MAX: usize = 20;

/// What is known of one request.
#[derive(Clone, Debug)]
struct Request {
    account: AccountId,
    run: u32,
    lease: ReplicaId,
    delivered: i64,
    /// The checkpoints that were sent, and when.
    checkpoints: Vec<(Instant, i64)>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// It never went upstream.
    Dropped,
    /// Its settlement was sent: what it cost, and what of it was above its hold at most.
    Settled { at: Instant, cost: i64, over: i64 },
}

#[derive(Debug, Default)]
struct State {
    requests: BTreeMap<RequestId, Request>,
    credited: BTreeMap<AccountId, i64>,
    barred: BTreeMap<usize, Instant>,
    disabled: BTreeMap<AccountId, Instant>,
    stopping: BTreeSet<u32>,
    stopped: BTreeSet<u32>,
    killed: BTreeMap<u32, (Instant, ReplicaId)>,
    faults: Vec<String>,
}

/// The judge.
#[derive(Debug, Default)]
pub(crate) struct Oracle(Mutex<State>);

/// A request's rows: cost, charged, house loss, whether the reaper charged it.
type Row = (Uuid, i64, i64, i64, bool);

impl Oracle {
    /// Something is wrong.
    pub(crate) fn blame(&self, fault: String) {
        let mut state = self.state();
        if state.faults.len() < FAULTS_MAX {
            state.faults.push(fault);
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    pub(crate) fn stopping(&self, run: u32) {
        self.state().stopping.insert(run);
    }

    pub(crate) fn is_stopping(&self, run: u32) -> bool {
        self.state().stopping.contains(&run)
    }

    /// It says that it has written everything.
    pub(crate) fn stopped(&self, run: u32) {
        self.state().stopped.insert(run);
    }

    pub(crate) fn killed(&self, run: u32, name: ReplicaId) {
        self.state().killed.insert(run, (Instant::now(), name));
    }

    pub(crate) fn credited(&self, account: AccountId, amount: i64) {
        *self.state().credited.entry(account).or_default() += amount;
    }

    pub(crate) fn barred(&self, key: usize) {
        self.state().barred.insert(key, Instant::now());
    }

    pub(crate) fn disabled(&self, account: AccountId) {
        self.state().disabled.insert(account, Instant::now());
    }

    pub(crate) fn enabled(&self, account: AccountId) {
        self.state().disabled.remove(&account);
    }

    /// A key was accepted: it must not have been revoked a second ago.
    pub(crate) fn admitted(&self, key: usize, world: &World, run: u32) {
        let account = world.account_of(key);
        let (barred, disabled) = {
            let state = self.state();
            (
                state.barred.get(&key).copied(),
                state.disabled.get(&account).copied(),
            )
        };
        let now = Instant::now();
        for (what, at) in [("revoked", barred), ("disabled", disabled)] {
            if let Some(at) = at
                && now > at + KNOWN_WITHIN
                && world.sky.calm(at, now)
            {
                let ago = now - at;
                self.blame(format!("run {run} accepted key {key}, {what} {ago:?} ago"));
            }
        }
    }

    /// Credit was set aside under this name: whoever has it must not have been reaped.
    pub(crate) fn granted(&self, world: &World, lease: ReplicaId, run: u32) {
        let state = state_of(world, lease);
        if state != "alive" {
            self.blame(format!(
                "run {run} granted from a lease of {lease}, which is {state}"
            ));
        }
    }

    pub(crate) fn opened(&self, facts: &Arc<RequestFacts>, run: u32, lease: ReplicaId) {
        let request = Request {
            account: facts.account_id,
            run,
            lease,
            delivered: 0,
            checkpoints: Vec::new(),
            end: None,
        };
        self.state().requests.insert(facts.request_id, request);
    }

    pub(crate) fn lease_of(&self, id: RequestId) -> Option<ReplicaId> {
        self.state().requests.get(&id).map(|request| request.lease)
    }

    pub(crate) fn delivered(&self, id: RequestId, worth: i64) {
        self.with(id, |request| request.delivered = worth);
    }

    pub(crate) fn checkpointed(&self, id: RequestId, cost: i64) {
        self.with(id, |request| {
            request.checkpoints.push((Instant::now(), cost))
        });
    }

    pub(crate) fn dropped(&self, id: RequestId) {
        self.with(id, |request| request.end = Some(End::Dropped));
    }

    /// Its settlement was sent; at most `over` of the cost was above the hold.
    pub(crate) fn settled(&self, id: RequestId, cost: i64, over: i64) {
        let at = Instant::now();
        self.with(id, |request| {
            request.end = Some(End::Settled { at, cost, over })
        });
    }

    /// What of a budget nobody holds and everybody could get now.
    pub(crate) fn to_be_had(&self, world: &World, budget: BudgetId) -> i64 {
        let id = budget.uuid().simple();
        let text = format!("SELECT available - floor FROM budgets WHERE id = x'{id}'");
        let stored: Vec<(i64,)> = world.database.look(&text).unwrap();
        let now = Instant::now().into_std();
        let mut there = stored.first().map_or(0, |row| row.0);
        world.for_each_replica(|replica| {
            let figures = replica.ledger.escrow().budget(budget).figures();
            let usable = figures.usable_until.is_none_or(|until| now < until);
            if usable && !replica.node.is_frozen() {
                there += figures.free.nanos();
            }
        });
        there
    }

    /// A request was refused credit though at least `there` was to be had all the while.
    pub(crate) fn refused(
        &self,
        world: &World,
        short: &Shortfall,
        need: i64,
        there: i64,
        since: Instant,
    ) {
        let excused = match short.budget {
            // Grants that expire: what is there may not be used any more.
            BudgetId::Account(account) => world.has_expiring_grants(account),
            BudgetId::Key(..) => false,
        };
        let calm = world
            .sky
            .calm(since - Duration::from_secs(1), Instant::now());
        if there >= need && calm && !excused && !short.unavailable {
            self.blame(format!(
                "refused {need} while {there} were to be had: {short}"
            ));
        }
    }

    /// What must hold at any moment.
    pub(crate) fn watch(&self, world: &World) {
        let now = Instant::now();
        let below: Vec<(Uuid, i64)> = world
            .database
            .look("SELECT id, available FROM budgets WHERE kind = 'account' AND available < floor")
            .unwrap();
        for (id, available) in below {
            self.blame(format!("account {id} is at {available}, below its floor"));
        }
        world.for_each_replica(|replica| {
            let escrow = replica.ledger.escrow();
            let name = escrow.replica();
            let leases: BTreeMap<Uuid, i64> = world
                .database
                .look::<(Uuid, i64)>(&format!(
                    "SELECT budget_id, amount FROM leases WHERE replica_id = x'{}'",
                    name.uuid().simple()
                ))
                .unwrap()
                .into_iter()
                .collect();
            let stated = state_of(world, name);
            let was_reset = name != replica.first_name;
            if stated == "alive" {
                escrow.for_each_budget(|budget| {
                    let figures = budget.figures();
                    // After a reset, running requests hold what is not leased any more.
                    let held = if was_reset { 0 } else { figures.held.nanos() };
                    let here = figures.free.nanos() + held;
                    let leased = leases.get(&budget.id().uuid()).copied().unwrap_or(0);
                    if here > leased {
                        let id = budget.id();
                        self.blame(format!("{name} has {here} of {id:?} and leased {leased}"));
                    }
                });
            }
            let long = now - TTL * 3;
            if (was_reset || stated == "reaped") && world.sky.calm(replica.since.max(long), now) {
                let run = replica.run;
                if replica.since < long {
                    return;
                }
                self.blame(format!("run {run} lives and was reaped"));
            }
        });
        let killed: Vec<_> = self.state().killed.clone().into_iter().collect();
        for (run, (at, name)) in killed {
            let by = TTL + MARGIN + REAPED_WITHIN;
            let watched = world.watched_since(at);
            if let Some(since) = watched
                && now > since + by
                && world.sky.calm(at, now)
                && state_of(world, name) == "alive"
            {
                self.blame(format!(
                    "run {run} was killed {:?} ago and is not reaped",
                    now - at
                ));
            }
        }
    }

    /// What must hold when all is over: every replica has stopped or was reaped.
    pub(crate) fn conclude(&self, world: &World) {
        let look = |text: &str| -> i64 {
            let rows: Vec<(i64,)> = world.database.look(text).unwrap();
            rows.first().map_or(0, |row| row.0)
        };
        for (what, text) in [
            (
                "living replicas",
                "SELECT COUNT(*) FROM replicas WHERE state = 'alive'",
            ),
            (
                "leased credits",
                "SELECT COALESCE(SUM(amount), 0) FROM leases",
            ),
            (
                "leased credits in budgets",
                "SELECT COALESCE(SUM(leased), 0) FROM budgets",
            ),
            ("checkpoints", "SELECT COUNT(*) FROM checkpoints"),
            ("dead settlements", "SELECT COUNT(*) FROM dead_settlements"),
        ] {
            let left = look(text);
            if left != 0 {
                self.blame(format!("{left} {what} are left"));
            }
        }
        let credited = self.state().credited.clone();
        for (account, amount) in credited {
            let entered = look(&format!(
                "SELECT COALESCE(SUM(amount), 0) FROM entries WHERE account_id = x'{}' \
                 AND kind <> 'expiry' AND reference IS NULL",
                account.uuid().simple()
            ));
            if entered != amount {
                self.blame(format!(
                    "{account}: {amount} acknowledged, {entered} entered"
                ));
            }
        }
        self.conclude_requests(world);
    }

    /// Every request against its rows.
    fn conclude_requests(&self, world: &World) {
        let rows: Vec<Row> = world
            .database
            .look("SELECT id, cost, charged, house_loss, ended = 'gateway_lost' FROM charges")
            .unwrap();
        let mut rows: BTreeMap<Uuid, Row> = rows.into_iter().map(|row| (row.0, row)).collect();
        let sums = |text: &str| -> BTreeMap<Uuid, i64> {
            let rows: Vec<(Uuid, i64)> = world.database.look(text).unwrap();
            rows.into_iter().collect()
        };
        let late = sums("SELECT id, amount FROM house_losses");
        let refunds = sums("SELECT id, amount FROM entries WHERE reference IS NOT NULL");
        let requests = self.state().requests.clone();
        for (id, request) in requests {
            let uuid = id.uuid();
            let row = rows.remove(&uuid);
            let late = late.get(&uuid).copied().unwrap_or(0);
            let refund = refunds.get(&uuid).copied().unwrap_or(0);
            if let Some(fault) = self.judge(world, &request, row, late, refund) {
                self.blame(format!(
                    "{id} of run {}: {fault}; {request:?} {row:?}",
                    request.run
                ));
            }
        }
        for id in rows.keys() {
            self.blame(format!("{id} was charged and never made"));
        }
    }

    fn judge(
        &self,
        world: &World,
        request: &Request,
        row: Option<Row>,
        late: i64,
        refund: i64,
    ) -> Option<&'static str> {
        let killed = self.state().killed.get(&request.run).map(|(at, _)| *at);
        let Some((_, cost, charged, loss, by_reaper)) = row else {
            let lost = match (request.end, killed) {
                (Some(End::Dropped), _) => false,
                // What it was about to write when it was killed is the stated bound.
                (Some(End::Settled { at, .. }), Some(killed)) => {
                    at + WRITTEN_WITHIN < killed && world.sky.calm(at, killed)
                }
                (Some(End::Settled { .. }), None) => true,
                (None, Some(killed)) => {
                    covered(world, request, killed).is_some_and(|cost| cost > 0)
                }
                (None, None) => false,
            };
            return lost.then_some("it was delivered and not charged");
        };
        if charged - refund > request.delivered.max(0) {
            return Some("more was charged than delivered");
        }
        match request.end {
            Some(End::Dropped) => Some("it never went upstream and was charged"),
            Some(End::Settled {
                cost: true_cost,
                over,
                at,
            }) => {
                let written = killed.is_none_or(|killed| {
                    at + WRITTEN_WITHIN < killed && world.sky.calm(at, killed)
                });
                if by_reaper {
                    // The truth came later and corrected it, or never came.
                    // Less than the checkpoint is given back; more is charged late or borne.
                    let corrected = if refund > 0 {
                        charged - refund == true_cost
                    } else {
                        cost + late - refund == true_cost
                    };
                    return (written && !corrected).then_some("it was not corrected");
                }
                if cost != true_cost {
                    return Some("it cost something else");
                }
                let reaped = state_of(world, request.lease) == "reaped";
                (loss > over && !reaped).then_some("the operator bore what was held")
            }
            None if !by_reaper => Some("it did not end and was charged in full"),
            None => {
                let least = killed.and_then(|killed| covered(world, request, killed));
                (least > Some(cost)).then_some("the reaper charged less than the checkpoint")
            }
        }
    }

    fn with(&self, id: RequestId, change: impl FnOnce(&mut Request)) {
        if let Some(request) = self.state().requests.get_mut(&id) {
            change(request);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How many requests were made, and the worth of what they delivered.
    pub(crate) fn delivered_in_all(&self) -> (usize, i64) {
        let state = self.state();
        let worth = state
            .requests
            .values()
            .map(|request| request.delivered)
            .sum();
        (state.requests.len(), worth)
    }

    /// Whose requests they were; for a look at the spread of a run.
    pub(crate) fn accounts_used(&self) -> usize {
        let state = self.state();
        let accounts: BTreeSet<_> = state.requests.values().map(|r| r.account).collect();
        accounts.len()
    }
}

/// The cost of the last checkpoint that was surely written before the replica was killed.
fn covered(world: &World, request: &Request, killed: Instant) -> Option<i64> {
    let checkpoints = request.checkpoints.iter().rev();
    checkpoints
        .filter(|(at, _)| *at + WRITTEN_WITHIN < killed && world.sky.calm(*at, killed))
        .map(|(_, cost)| *cost)
        .next()
}

/// The state of a replica by the database.
fn state_of(world: &World, name: ReplicaId) -> String {
    let id = name.uuid().simple();
    let text = format!("SELECT state FROM replicas WHERE id = x'{id}'");
    let rows: Vec<(String,)> = world.database.look(&text).unwrap();
    rows.into_iter()
        .next()
        .map_or_else(|| "unknown".into(), |row| row.0)
}
