//! A replica that closes while an answer of the database is lost: what is settled is written all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use billing::{Credits, End, Hold, Meter, Price, Prompt, Rates, RequestFacts, RequestId, Reserved};
use store::{
    Ledger, NewKey, Store,
    simulation::{Database, Fate, Fault, Node, Step, Weather, new_id},
};
use tokens::{Encoding, Factor, Tokenizer, Usage};
use tokio::time::Instant;

use crate::ledgers::options;

/// Fair, but for one statement of node 1 that is never answered.
#[derive(Debug, Default)]
struct OneLost {
    armed: AtomicBool,
    lost: AtomicBool,
}

impl Weather for OneLost {
    fn now_us(&self) -> i64 {
        1_767_225_600_000_000
    }

    fn fate(&self, node: u32, step: Step) -> Fate {
        let lost = node == 1 && step == Step::Statement && self.armed.swap(false, Ordering::SeqCst);
        self.lost.fetch_or(lost, Ordering::SeqCst);
        Fate {
            fault: lost.then_some(Fault::Silence),
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

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_before_the_deadline_loses_no_settlement() {
    let folder = tempfile::tempdir().unwrap();
    let weather = Arc::new(OneLost::default());
    let database = Database::create(folder.path(), Arc::clone(&weather) as _).unwrap();
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
    let ledger = Ledger::start(store, options()).await.unwrap();

    settle_one(&ledger, key.secret.expose(), &price).await;
    weather.armed.store(true, Ordering::SeqCst);
    // Over long before the lost answer is given up, and so is its grace.
    let written = ledger.shutdown(Duration::from_secs(12)).await;
    assert!(weather.lost.load(Ordering::SeqCst), "nothing was lost");
    let charged: Vec<(i64,)> = database.look("SELECT charged FROM charges").unwrap();
    assert_eq!((written, charged), (true, vec![(44,)]));
}

/// A request that costs 44.
async fn settle_one(ledger: &Ledger, secret: &str, price: &Arc<Price>) {
    let key = ledger.authenticate(secret).await.unwrap();
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
    let mut charge = Hold::new(reserved, permit)
        .start(facts, meter, Instant::now().into_std())
        .unwrap();
    let usage = Usage {
        prompt: 40,
        completion: 4,
        ..Usage::default()
    };
    charge.report(usage, None);
    charge.finish(End::Completed).unwrap();
}
