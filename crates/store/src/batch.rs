//! One batch of the journal: everything that a replica has to tell the database, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use billing::{
    AccountId, BudgetId, Capture, Checkpoint, Credits, ReplicaId, RequestId, Settlement,
    rules::{Ask, Booked, Granted, Moment},
};

use uuid::Uuid;

use crate::{
    StoreError,
    book::{self, EntryNotes, Loaded, Scope},
    booking::{self, Dead, LATE_SETTLEMENT, NewCharge, USAGE_ABOVE_HOLD},
    changes::{self, Change},
    closing::{self, MONTH_CLOSED},
    credit::new_entry_id,
    idempotency,
    link::Link,
    sql::{Rows, sql},
};

/// What goes into one transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Its number, rising; the replica's row keeps the last one committed.
    pub(crate) seq: i64,
    pub(crate) settlements: Vec<Item>,
    /// Credit given back, already gone from memory.
    pub(crate) returns: Vec<(BudgetId, Credits)>,
    /// Credit asked for. `recall` tells the other replicas when there is none.
    pub(crate) asks: Vec<Asked>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// What of each lease is held, where that changed.
    pub(crate) held: Vec<(BudgetId, Credits)>,
    /// The charges of all settlements lie in the transaction that is open, as the rules were
    /// expected to decide ([`crate::ahead`]).
    pub(crate) ahead: bool,
    /// A settlement of it may have been booked before: look at all. Otherwise only those of leases
    /// that were taken back are looked at, and two charges of one request refuse each other.
    pub(crate) careful: bool,
}

/// A settlement; with a problem it is put aside instead of booked.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) settlement: Settlement,
    pub(crate) problem: Option<String>,
}

impl Item {
    pub(crate) const fn new(settlement: Settlement) -> Self {
        Self {
            settlement,
            problem: None,
        }
    }
}

/// A question for credit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) budget: BudgetId,
    pub(crate) ask: Ask,
    pub(crate) recall: bool,
}

/// What a batch did, in the order of its questions.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) now: Moment,
    pub(crate) granted: Vec<Granted>,
    /// What the operator bears, by cause.
    pub(crate) losses: BTreeMap<&'static str, Credits>,
    /// How many settlements were put aside.
    pub(crate) dead: u64,
}

/// How far a batch got before its commit.
#[derive(Debug)]
pub(crate) enum Applied {
    /// Ready to be committed.
    Ready(Outcome),
    /// The charges that were sent ahead are not those that follow from the rules.
    Otherwise,
    /// It was committed by an attempt before this one.
    Before,
    /// The replica was reaped; `committed` says whether this batch was before that.
    Reaped {
        /// Whether this batch counts.
        committed: bool,
    },
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.settlements.is_empty()
            && self.returns.is_empty()
            && self.asks.is_empty()
            && self.checkpoints.is_empty()
            && self.held.is_empty()
    }

    /// Cuts a refused batch into pieces that may pass: settlements by halves, until one alone is put
    /// aside with the reason.
    pub(crate) fn split(&mut self, parts: &mut Vec<Batch>, error: &StoreError) {
        let mut settlements = std::mem::take(&mut self.settlements);
        let rest = Batch {
            returns: std::mem::take(&mut self.returns),
            checkpoints: std::mem::take(&mut self.checkpoints),
            ..Batch::default()
        };
        if settlements.is_empty() {
            // Nothing that could be lost: credit not given back is taken back when the replica ends.
            return;
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
        if let [one] = settlements.as_mut_slice() {
            if one.problem.is_some() {
                tracing::error!(
                    settlement = ?one.settlement,
                    %error,
                    "a settlement could be neither booked nor put aside"
                );
                return;
            }
            one.problem = Some(error.to_string());
            parts.push(Batch {
                settlements,
                ..Batch::default()
            });
            return;
        }
        let second = settlements.split_off(settlements.len() / 2);
        for half in [second, settlements] {
            parts.push(Batch {
                settlements: half,
                ..Batch::default()
            });
        }
    }

    fn scope(&self, replica: ReplicaId) -> Scope {
        let mut scope = Scope {
            replica: Some(replica),
            ..Scope::default()
        };
        for item in &self.settlements {
            let facts = &item.settlement.facts;
            scope.budgets.insert(BudgetId::Account(facts.account_id));
            scope
                .budgets
                .insert(BudgetId::Key(facts.account_id, facts.key_id));
            let request = (facts.account_id, facts.request_id);
            scope.requests.insert(request);
            if self.careful || item.settlement.lease != replica {
                scope.maybe_booked.insert(request);
            }
            let draw = scope.draws.entry(facts.account_id).or_default();
            *draw = draw.saturating_add(item.settlement.capture.cost);
        }
        let returned = self.returns.iter().map(|(budget, _)| *budget);
        for budget in returned.chain(self.asks.iter().map(|asked| asked.budget)) {
            scope.budgets.insert(budget);
            // What comes back or is leased uses up no grant.
            scope.draw_nothing(budget);
        }
        scope
    }
}

#[derive(sqlx::FromRow)]
struct ReplicaRecord {
    state: String,
    last_batch: i64,
}

/// Applies a batch within a transaction of the caller's, who commits it.
///
/// The first statement takes the replica's own row: a replica that was reaped does nothing, and
/// a batch whose commit was in doubt is not applied again.
pub(crate) async fn apply(
    link: &mut Link<'_>,
    replica: ReplicaId,
    batch: &Batch,
    ahead: bool,
) -> Result<Applied, StoreError> {
    let fence = sql("UPDATE replicas SET heartbeat_at = {now}, last_batch = ? \
         WHERE id = ? AND state = 'alive' AND last_batch < ? \
         RETURNING (SELECT COUNT(*) FROM replicas r WHERE r.state = 'alive')");
    let fence = fence.int(batch.seq).uuid(replica.uuid()).int(batch.seq);
    let Some((live,)) = link.maybe::<(i64,)>(fence).await? else {
        return why_fenced(link, replica, batch.seq).await;
    };
    let scope = batch.scope(replica);
    if scope.budgets.is_empty() {
        write_marks(link, replica, batch, &[]).await?;
        return Ok(Applied::Ready(Outcome {
            now: book::now(link).await?,
            ..Outcome::default()
        }));
    }
    let mut loaded = book::load(link, &scope).await?;
    let live = u32::try_from(live).unwrap_or(u32::MAX);
    let outcome = book_all(link, replica, batch, &scope, &mut loaded, (live, ahead)).await?;
    Ok(outcome.map_or(Applied::Otherwise, Applied::Ready))
}

async fn why_fenced(
    link: &mut Link<'_>,
    replica: ReplicaId,
    seq: i64,
) -> Result<Applied, StoreError> {
    let select = sql("SELECT state, last_batch FROM replicas WHERE id = ?");
    let row: Option<ReplicaRecord> = link.maybe(select.uuid(replica.uuid())).await?;
    Ok(match row {
        Some(row) if row.state == "alive" => Applied::Before,
        Some(row) => Applied::Reaped {
            committed: row.last_batch >= seq,
        },
        None => Applied::Reaped { committed: false },
    })
}

/// Runs the rules over the loaded rows and writes everything that follows from them. `None`: the
/// charges sent ahead are others.
async fn book_all(
    link: &mut Link<'_>,
    replica: ReplicaId,
    batch: &Batch,
    scope: &Scope,
    loaded: &mut Loaded,
    (live, ahead): (u32, bool),
) -> Result<Option<Outcome>, StoreError> {
    for (budget, amount) in &batch.returns {
        // A budget that is gone has nothing to give back to.
        if loaded.book.budget(*budget).is_ok() {
            loaded.book.give_back(*budget, replica, *amount)?;
        }
    }
    let (settled, mut outcome) = settle(link, replica, batch, scope, loaded).await?;
    if ahead && !settled.are_as_expected(batch) {
        return Ok(None);
    }
    let mut recalls = Vec::new();
    for asked in &batch.asks {
        let granted = acquire(loaded, replica, asked, live)?;
        if matches!(granted, Granted::Short { leased_elsewhere, .. } if leased_elsewhere.is_positive())
            && asked.recall
        {
            recalls.push(asked.budget);
        }
        outcome.granted.push(granted);
    }
    loaded.save(link, &EntryNotes::default()).await?;
    if !ahead {
        settled.save(link, outcome.now).await?;
    }
    let checkpointed: Vec<(ReplicaId, RequestId)> = batch
        .settlements
        .iter()
        .filter(|item| item.settlement.checkpointed)
        // Written under the lease's name, or under ours after that one was reaped.
        .flat_map(|item| [item.settlement.lease, replica].map(|r| (r, &item.settlement)))
        .map(|(replica, settlement)| (replica, settlement.facts.request_id))
        .collect();
    write_marks(link, replica, batch, &checkpointed).await?;
    for budget in recalls {
        changes::announce(link, Change::Recall(budget), Some(replica)).await?;
    }
    Ok(Some(outcome))
}

/// The charges that settlements are expected to leave behind, where that can be told without
/// looking: every one is covered by a lease that this replica has.
pub(crate) fn expected(items: &[Item], replica: ReplicaId) -> Option<Vec<NewCharge<'_>>> {
    let covered = |item: &Item| {
        let Settlement { lease, capture, .. } = &item.settlement;
        item.problem.is_none() && *lease == replica && capture.owed.is_zero()
    };
    items.iter().all(covered).then(|| {
        let settlements = items.iter().map(|item| &item.settlement);
        let charges = settlements.map(|settlement| {
            let Capture {
                charged,
                house_loss,
                ..
            } = settlement.capture;
            NewCharge::of(settlement, charged, house_loss)
        });
        charges.collect()
    })
}

/// The rows that a batch's settlements leave behind.
#[derive(Default)]
struct Settled<'a> {
    charges: Vec<NewCharge<'a>>,
    late_losses: Vec<(AccountId, RequestId, Credits)>,
    dead: Vec<Dead>,
}

impl Settled<'_> {
    /// Whether these are the charges that [`expected`] told, and nothing else.
    fn are_as_expected(&self, batch: &Batch) -> bool {
        self.late_losses.is_empty()
            && self.dead.is_empty()
            && self.charges.len() == batch.settlements.len()
            && self
                .charges
                .iter()
                .zip(&batch.settlements)
                .all(|(charge, item)| {
                    let Settlement { facts, capture, .. } = &item.settlement;
                    charge.due.request == facts.request_id
                        && charge.due.cost == capture.cost
                        && charge.charged == capture.charged
                        && charge.house_loss == capture.house_loss
                        && !charge.late
                })
    }

    async fn save(&self, link: &mut Link<'_>, now: Moment) -> Result<(), StoreError> {
        booking::insert_charges(link, &self.charges, now.0).await?;
        booking::insert_late_losses(link, &self.late_losses, now.0).await?;
        booking::insert_dead(link, &self.dead, now.0).await
    }
}

/// Books settlements of a dead replica, whose row is locked, within a transaction of the
/// caller's. `alive` says that its leases were not taken back yet: they cover what they can.
pub(crate) async fn book_lost(
    link: &mut Link<'_>,
    dead: ReplicaId,
    alive: bool,
    batch: &Batch,
) -> Result<Outcome, StoreError> {
    let mut scope = batch.scope(dead);
    scope.maybe_booked.clone_from(&scope.requests);
    let mut loaded = book::load(link, &scope).await?;
    let holder = if alive {
        dead
    } else {
        ReplicaId::from_uuid(Uuid::nil())
    };
    let (settled, outcome) = settle(link, holder, batch, &scope, &mut loaded).await?;
    loaded.save(link, &EntryNotes::default()).await?;
    settled.save(link, outcome.now).await?;
    let requests = batch.settlements.iter();
    let requests = requests.map(|item| (dead, item.settlement.facts.request_id));
    booking::delete_checkpoints(link, requests).await?;
    Ok(outcome)
}

/// Requests of a replica that was reaped, whose client has run them anew since: it pays once.
/// Read under the accounts' locks, and only where a settlement is late, which is rare.
async fn superseded(
    link: &mut Link<'_>,
    replica: ReplicaId,
    batch: &Batch,
) -> Result<Vec<RequestId>, StoreError> {
    let late = batch
        .settlements
        .iter()
        .filter(|item| item.settlement.lease != replica)
        .map(|item| &item.settlement.facts)
        .map(|facts| (facts.account_id, facts.request_id));
    idempotency::superseded(link, late).await
}

/// Looks up which settlements must not be booked as they are, and runs the rules over all.
async fn settle<'a>(
    link: &mut Link<'_>,
    replica: ReplicaId,
    batch: &'a Batch,
    scope: &Scope,
    loaded: &mut Loaded,
) -> Result<(Settled<'a>, Outcome), StoreError> {
    let mut outcome = Outcome {
        now: loaded.book.now(),
        ..Outcome::default()
    };
    let closed = closing::closed(link, &scope.requests, outcome.now.0).await?;
    let superseded = superseded(link, replica, batch).await?;
    let settled = settle_all(replica, batch, loaded, &closed, &superseded, &mut outcome);
    Ok((settled, outcome))
}

/// Runs the rules over every settlement; one that they refuse is put aside and stops nobody.
fn settle_all<'a>(
    replica: ReplicaId,
    batch: &'a Batch,
    loaded: &mut Loaded,
    closed: &BTreeSet<RequestId>,
    superseded: &[RequestId],
    outcome: &mut Outcome,
) -> Settled<'a> {
    let mut rows = Settled::default();
    for item in &batch.settlements {
        let settlement = &item.settlement;
        let mut due = booking::due(settlement);
        if superseded.contains(&due.request) {
            due = booking::borne_by_the_house(due);
        }
        if let Some(problem) = &item.problem {
            rows.dead
                .push(Dead::settlement(settlement, problem.clone()));
            continue;
        }
        if closed.contains(&due.request) {
            rows.dead
                .push(Dead::settlement(settlement, MONTH_CLOSED.to_owned()));
            continue;
        }
        match loaded.book.settle(&due, due.lease != replica) {
            Ok(Booked::Charge {
                charged,
                house_loss,
                late,
            }) => {
                let cause = if late {
                    LATE_SETTLEMENT
                } else {
                    USAGE_ABOVE_HOLD
                };
                outcome.lose(cause, house_loss);
                rows.charges.push(NewCharge {
                    due,
                    late,
                    ..NewCharge::of(settlement, charged, house_loss)
                });
            }
            Ok(Booked::LateCharge { house_loss, .. }) => {
                outcome.lose(LATE_SETTLEMENT, house_loss);
                if house_loss.is_positive() {
                    rows.late_losses
                        .push((due.account, due.request, house_loss));
                }
            }
            Ok(Booked::Replayed | Booked::LateRefund(_)) => {}
            Err(refused) => rows
                .dead
                .push(Dead::settlement(settlement, refused.to_string())),
        }
    }
    outcome.dead = u64::try_from(rows.dead.len()).unwrap_or(u64::MAX);
    rows
}

fn acquire(
    loaded: &mut Loaded,
    replica: ReplicaId,
    asked: &Asked,
    live: u32,
) -> Result<Granted, StoreError> {
    if loaded.book.budget(asked.budget).is_err() {
        return Ok(Granted::Short {
            available: Credits::ZERO,
            leased_elsewhere: Credits::ZERO,
        });
    }
    let granted = loaded
        .book
        .acquire(asked.budget, replica, asked.ask, live, &mut new_entry_id)?;
    Ok(granted)
}

/// Checkpoints and held amounts: they decide nothing.
async fn write_marks(
    link: &mut Link<'_>,
    replica: ReplicaId,
    batch: &Batch,
    settled: &[(ReplicaId, RequestId)],
) -> Result<(), StoreError> {
    // Of several checkpoints of one request the last one counts.
    let newest: BTreeMap<RequestId, &Checkpoint> = batch
        .checkpoints
        .iter()
        .map(|checkpoint| (checkpoint.facts.request_id, checkpoint))
        .collect();
    let newest: Vec<&Checkpoint> = newest.into_values().collect();
    booking::upsert_checkpoints(link, replica, &newest).await?;
    booking::delete_checkpoints(link, settled.iter().copied()).await?;
    if batch.held.is_empty() {
        return Ok(());
    }
    let rows = Rows::new()
        .uuid(
            "account_id",
            batch.held.iter().map(|h| h.0.account().uuid()),
        )
        .uuid("budget_id", batch.held.iter().map(|h| h.0.uuid()))
        .int(
            "held",
            batch.held.iter().map(|h| h.1.at_least_zero().nanos()),
        );
    let update = sql(
        "UPDATE leases SET held = s.held, updated_at = {now} FROM {rows} \
         WHERE leases.account_id = s.account_id AND leases.budget_id = s.budget_id \
           AND leases.replica_id = ?",
    );
    link.run(update.rows(rows).uuid(replica.uuid())).await?;
    Ok(())
}

impl Outcome {
    /// The same where what it leased was taken back meanwhile.
    pub(crate) fn without_leases(mut self) -> Self {
        for granted in &mut self.granted {
            if matches!(granted, Granted::Lease { .. }) {
                *granted = Granted::Short {
                    available: Credits::ZERO,
                    leased_elsewhere: Credits::from_nanos(1),
                };
            }
        }
        self
    }

    fn lose(&mut self, cause: &'static str, amount: Credits) {
        if amount.is_positive() {
            let sum = self.losses.entry(cause).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
}
