//! Requests as the gateway makes them: a permit, a hold from memory or a refill, a charge, a settlement.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use billing::{
    AccountId, BudgetId, Credits, End, Hold, KeyId, Meter, Path, Prompt, RequestFacts, RequestId,
    Reserved,
};
use store::{Ledger, LedgerOptions};
use tokens::{Encoding, Factor, Tokenizer, Usage};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    books,
    error::BenchError,
    load::{HOLD, Load, Random, Seen, Turns},
    raw::Raw,
    world::World,
};

/// What a provider reports, about as long as it is.
const REPORT: &str =
    "{\"prompt_tokens\":0,\"completion_tokens\":600,\"total_tokens\":600,\"cost\":0}";
/// While the journal's queue is full, a request comes again after this; a client would be told
/// to come later.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How often another connection looks whether a settlement is there.
const PROBE_EVERY: Duration = Duration::from_millis(1);
/// How often the ledger is asked for its own figure of the lag.
const STATS_EVERY: Duration = Duration::from_millis(10);
/// Within this, everything that was sent is written.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether it is, which visits every budget.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// Within this, credit is there: every account is rich.
const HOLD_MAX: Duration = Duration::from_secs(20);

/// What the tasks of a run share.
struct Shared {
    ledger: Ledger,
    world: Arc<World>,
    paths: Vec<Path>,
    load: Load,
    over: AtomicBool,
}

/// One run on a ledger of its own, and a look whether everything that was settled is booked.
pub(crate) async fn run(
    world: &Arc<World>,
    load: Load,
    in_flight: usize,
    local_journal: Option<PathBuf>,
) -> Result<Seen, BenchError> {
    let first = Uuid::now_v7();
    let options = LedgerOptions {
        in_flight_max: in_flight,
        local_journal,
        ..LedgerOptions::default()
    };
    let ledger = Ledger::start(world.store.clone(), options).await?;
    let path_of = |number| {
        let account = BudgetId::Account(AccountId::from_uuid(books::account(number)));
        Path::new([ledger.escrow().budget(account)])
    };
    let shared = Arc::new(Shared {
        paths: (0..load.spread.accounts).map(path_of).collect(),
        ledger,
        world: Arc::clone(world),
        load,
        over: AtomicBool::new(false),
    });
    let mut watching = JoinSet::new();
    watching.spawn(probe(Arc::clone(&shared)));
    watching.spawn(ask(Arc::clone(&shared)));
    let before = world.meter.read();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..load.tasks {
        tasks.spawn(requests(Arc::clone(&shared), task));
    }
    let mut seen = Seen::default();
    while let Some(done) = tasks.join_next().await {
        seen.add(done??);
    }
    shared.over.store(true, Ordering::Release);
    while let Some(done) = watching.join_next().await {
        seen.add(done??);
    }
    drained(&shared.ledger).await?;
    seen.took = began.elapsed();
    seen.used = world.meter.read().since(before);
    shared.ledger.shutdown(DRAIN_MAX).await;
    check(world, first, &seen).await?;
    Ok(seen)
}

async fn requests(shared: Arc<Shared>, task: usize) -> Result<Seen, BenchError> {
    let mut random = Random::new(task);
    let mut turns = Turns::of(&shared.load, task);
    let mut seen = Seen::default();
    while turns.next().await {
        request(&shared, &mut random, &mut seen).await?;
    }
    Ok(seen)
}

/// One request, and which it was.
async fn request(
    shared: &Shared,
    random: &mut Random,
    seen: &mut Seen,
) -> Result<(Uuid, Uuid), BenchError> {
    let ledger = &shared.ledger;
    let number = shared.load.spread.pick(random.next());
    let index = usize::try_from(number).unwrap_or(0);
    let Some(path) = shared.paths.get(index) else {
        return Ok((Uuid::nil(), Uuid::nil()));
    };
    let mut permit = ledger.reserve();
    while permit.is_err() {
        tokio::time::sleep(BUSY_PAUSE).await;
        permit = ledger.reserve();
    }
    let Ok(permit) = permit else {
        return Ok((Uuid::nil(), Uuid::nil()));
    };
    let admitted = Instant::now();
    let amount = Credits::from_nanos(HOLD);
    let reserved = match Reserved::take(path, amount, admitted) {
        Ok(reserved) => {
            seen.covered.push(admitted.elapsed());
            reserved
        }
        Err(_) => {
            let reserved = fetch(ledger, path, amount).await?;
            seen.fetched.push(admitted.elapsed());
            reserved
        }
    };
    for budget in path.budgets() {
        ledger.refill_soon(budget);
    }
    let id = Uuid::now_v7();
    let facts = RequestFacts {
        request_id: RequestId::from_uuid(id),
        account_id: AccountId::from_uuid(books::account(number)),
        key_id: KeyId::from_uuid(books::key(number)),
        key_has_limit: false,
        endpoint: "chat.completions",
        model: MODEL.with(Arc::clone),
        provider: MODEL.with(Arc::clone),
        price_id: shared.world.price_id,
        stream: true,
    };
    let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::EXACT);
    let prompt = Prompt::Exact(Usage::default());
    let meter = Meter::new(Arc::clone(&shared.world.price), tokenizer, prompt);
    let mut charge = Hold::new(reserved, permit).start(Arc::new(facts), meter, admitted)?;
    let usage = Usage {
        completion: u64::from(random.cost()),
        ..Usage::default()
    };
    charge.report(usage, Some(REPORT.into()));
    charge.finish(End::Completed);
    seen.requests += 1;
    Ok((books::account(number), id))
}

thread_local! {
    /// The name of the model, which is the provider's too.
    static MODEL: Arc<str> = "bench".into();
}

async fn fetch(ledger: &Ledger, path: &Path, amount: Credits) -> Result<Reserved, BenchError> {
    let deadline = Instant::now() + HOLD_MAX;
    loop {
        ledger.obtain(path, amount, amount, deadline).await?;
        if let Ok(reserved) = Reserved::take(path, amount, Instant::now()) {
            return Ok(reserved);
        }
    }
}

/// Makes one request after the other and looks, through a connection of its own, when it is booked.
async fn probe(shared: Arc<Shared>) -> Result<Seen, BenchError> {
    let mut raw = Raw::open(&shared.world.url).await?;
    let mut random = Random::new(usize::MAX);
    let mut seen = Seen::default();
    while !shared.over.load(Ordering::Acquire) {
        let mut own = Seen::default();
        let (account, id) = request(&shared, &mut random, &mut own).await?;
        let sent = Instant::now();
        while !raw.booked(account, id).await? {
            if sent.elapsed() > DRAIN_MAX {
                return Err(BenchError::NotDrained {
                    seconds: DRAIN_MAX.as_secs(),
                });
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
        seen.lag.push(sent.elapsed());
        seen.requests += own.requests;
    }
    Ok(seen)
}

/// Asks the ledger for what it exposes as the journal's lag.
async fn ask(shared: Arc<Shared>) -> Result<Seen, BenchError> {
    let mut seen = Seen::default();
    while !shared.over.load(Ordering::Acquire) {
        tokio::time::sleep(STATS_EVERY).await;
        seen.lag_said.push(shared.ledger.journal_lag());
    }
    Ok(seen)
}

/// Waits until everything that was sent is committed.
async fn drained(ledger: &Ledger) -> Result<(), BenchError> {
    let deadline = Instant::now() + DRAIN_MAX;
    while ledger.stats().in_flight > 0 {
        if Instant::now() >= deadline {
            return Err(BenchError::NotDrained {
                seconds: DRAIN_MAX.as_secs(),
            });
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    // The journal has everything; a balance is told after the batch that it came with. Nobody
    // has this account, so there is no balance to be told: the answer alone counts.
    let nobody = AccountId::from_uuid(Uuid::nil());
    let _ = ledger.balance(nobody).await;
    Ok(())
}

/// Every request that was settled must be booked, and no other.
async fn check(world: &World, first: Uuid, seen: &Seen) -> Result<(), BenchError> {
    let mut raw = Raw::open(&world.url).await?;
    let first = match world.kind {
        crate::plan::Kind::Sqlite => format!("x'{}'", first.simple()),
        crate::plan::Kind::Postgres => format!("'{first}'::uuid"),
    };
    let count = format!("SELECT COUNT(*) FROM charges WHERE id > {first}");
    let booked = raw.number(&count).await?;
    if u64::try_from(booked) == Ok(seen.requests) {
        return Ok(());
    }
    Err(BenchError::Books {
        run: "a run of the ledger".into(),
        what: format!(
            "{} requests were settled, {booked} are booked",
            seen.requests
        ),
    })
}
