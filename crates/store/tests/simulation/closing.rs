//! A replica that closes while an answer of the database is lost: what is settled is written all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use billing::{
    Charge, Credits, End, Hold, Meter, Price, Prompt, Rates, RequestFacts, RequestId, Reserved,
};
use store::{
    Ledger, NewKey, Store,
    simulation::{Database, Fate, Fault, Node, Step, Weather, new_id},
};
use tokens::{Encoding, Factor, Tokenizer, Usage};
use tokio::time::Instant;

use crate::ledgers::options;

/// Fair, but for one step of node 1, whose answer is lost or late.
#[derive(Debug)]
struct OneFault {
    step: Step,
    fault: Fault,
    armed: AtomicBool,
    seen: AtomicBool,
}

impl OneFault {
    fn of(step: Step, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            step,
            fault,
            armed: AtomicBool::new(false),
            seen: AtomicBool::new(false),
        })
    }
}

impl Weather for OneFault {
    fn now_us(&self) -> i64 {
        1_767_225_600_000_000
    }

    fn fate(&self, node: u32, step: Step) -> Fate {
        let due = node == 1 && step == self.step && self.armed.swap(false, Ordering::SeqCst);
        self.seen.fetch_or(due, Ordering::SeqCst);
        Fate {
            fault: due.then_some(self.fault),
            ..Fate::default()
        }
    }

    fn commits_anyway(&self, _node: u32) -> bool {
        false
    }

    fn lingers(&self, _node: u32) -> Duration {
        Duration::ZERO
    }
}

/// One replica, whose key may spend 1000.
struct Rig {
    _folder: tempfile::TempDir,
    database: Database,
    price: Arc<Price>,
    secret: String,
    ledger: Ledger,
}

async fn rig(weather: &Arc<OneFault>) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path(), Arc::clone(weather) as _).unwrap();
    let one = Credits::from_nanos(1_000_000);
    let price = Arc::new(Price::new(Rates::plain(one, one), Vec::new()).unwrap());
    let judge = Store::simulated(&Node::new(&database, 0)).await.unwrap();
    let (id, text) = (price.id().unwrap(), price.to_json().unwrap());
    judge
        .record_prices(&[(id, "acme", "m", text.as_str())])
        .await
        .unwrap();
    let new = NewKey {
        name: "key".into(),
        credits: Some(Credits::from_nanos(1000)),
        ..NewKey::default()
    };
    let key = judge.create_key(new).await.unwrap();
    let store = Store::simulated(&Node::new(&database, 1)).await.unwrap();
    Rig {
        _folder: folder,
        database,
        price,
        secret: key.secret.expose().to_owned(),
        ledger: Ledger::start(store, options()).await.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_before_the_deadline_loses_no_settlement() {
    let weather = OneFault::of(Step::Statement, Fault::Silence);
    let rig = rig(&weather).await;
    finish(start_one(&rig).await);
    weather.armed.store(true, Ordering::SeqCst);
    // Over long before the lost answer is given up, and so is its grace.
    let written = rig.ledger.shutdown(Duration::from_secs(12)).await;
    assert!(weather.seen.load(Ordering::SeqCst), "nothing was lost");
    let charged: Vec<(i64,)> = rig.database.look("SELECT charged FROM charges").unwrap();
    assert_eq!((written, charged), (true, vec![(44,)]));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ends_while_the_leases_are_given_back_is_booked() {
    let weather = OneFault::of(Step::Commit, Fault::Late(Duration::from_secs(1)));
    let rig = rig(&weather).await;
    let charge = start_one(&rig).await;
    let ending = async {
        // The last batch before the deadline is over, the one that gives the leases back not begun.
        // tidy: sleeps because the clock is the test's own.
        tokio::time::sleep(Duration::from_millis(1_900)).await;
        weather.armed.store(true, Ordering::SeqCst);
        // tidy: sleeps because the clock is the test's own.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(weather.seen.load(Ordering::SeqCst), "nothing is late");
        finish(charge);
    };
    let (written, ()) = tokio::join!(rig.ledger.shutdown(Duration::from_secs(2)), ending);
    let charged: Vec<(i64,)> = rig.database.look("SELECT charged FROM charges").unwrap();
    assert_eq!((written, charged), (true, vec![(44,)]));
}

/// A request that is running.
async fn start_one(rig: &Rig) -> Charge {
    let Rig { ledger, price, .. } = rig;
    let key = ledger.authenticate(&rig.secret).await.unwrap();
    let permit = ledger.reserve().unwrap();
    let want = Credits::from_nanos(50);
    let deadline = (Instant::now() + Duration::from_secs(5)).into_std();
    ledger
        .obtain(&key.path, want, want, deadline)
        .await
        .unwrap();
    let reserved = Reserved::take(&key.path, want, Instant::now().into_std()).unwrap();
    let facts = Arc::new(RequestFacts {
        request_id: RequestId::from_uuid(new_id()),
        account_id: key.account_id,
        key_id: key.key_id,
        key_has_limit: key.has_limit(),
        endpoint: "chat.completions",
        model: "m".into(),
        provider: "acme".into(),
        price_id: price.id().unwrap(),
        stream: false,
    });
    let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::EXACT);
    let meter = Meter::new(
        Arc::clone(price),
        tokenizer,
        Prompt::Exact(Usage::default()),
    );
    Hold::new(reserved, permit)
        .start(facts, meter, Instant::now().into_std())
        .unwrap()
}

/// It ends, and costs 44.
fn finish(mut charge: Charge) {
    let usage = Usage {
        prompt: 40,
        completion: 4,
        ..Usage::default()
    };
    charge.report(usage, None);
    charge.finish(End::Completed).unwrap();
}
