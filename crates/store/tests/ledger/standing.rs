//! Standing holds: set aside once among many, drawn by what is settled, back when they end; nobody has to live for them.

use std::time::Duration;

use billing::Credits;
use store::{
    CreatedKey, KeyRecord, Ledger, NewObject, ObjectKind, OwnedObject, Owner, StandingHold, Stood,
};

use crate::world::{World, flushed, n, on_both, open, quick, settlement};

const SHUTDOWN: Duration = Duration::from_secs(10);

fn owner(key: &CreatedKey) -> Owner {
    Owner {
        account: key.account.id,
        key: key.key.id,
    }
}

fn held(stood: Stood) -> StandingHold {
    match stood {
        Stood::Held(hold) => hold,
        Stood::Short(short) => panic!("{short}"),
    }
}

/// A batch that holds so much.
async fn batch(world: &World, key: &CreatedKey, amount: i64) -> (StandingHold, OwnedObject) {
    let limited = key.key.limit.is_some();
    let stood = world.store.stand(owner(key), limited, n(amount)).await;
    let hold = held(stood.unwrap());
    let new = NewObject {
        owner: hold.owner,
        provider: "p",
        id: "batch-a",
        kind: ObjectKind::Batch,
        about: None,
        made_by: None,
        batch: Some(("p/m", &hold)),
    };
    assert!(world.store.own(&new).await.unwrap());
    let object = world.store.objects(&["batch-a"]).await.unwrap().remove(0);
    assert_eq!(object.model.as_deref(), Some("p/m"));
    (hold, object)
}

async fn record(ledger: &Ledger, key: &CreatedKey) -> std::sync::Arc<KeyRecord> {
    ledger.authenticate(key.secret.expose()).await.unwrap()
}

async fn c1_one_of_many_stands(world: World) {
    let key = world.key(100, None).await;
    let (owner, postgres) = (owner(&key), world.is_postgres());
    let tasks = (0..8).map(|_| {
        let (url, store) = (world.url.clone(), world.store.clone());
        tokio::spawn(async move {
            let store = if postgres { open(&url).await } else { store };
            store.stand(owner, false, n(60)).await.unwrap()
        })
    });
    let mut stood = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Stood::Held(hold) => stood.push(hold),
            Stood::Short(short) => assert_eq!(short.available, n(40)),
        }
    }
    assert_eq!(stood.len(), 1);
    assert_eq!(world.budget(key.account.id.uuid()).await, (40, 60, 0));
    world.balanced().await;
    world.store.end_standing(&stood[0]).await.unwrap();
    world.store.end_standing(&stood[0]).await.unwrap();
    assert_eq!(world.budget(key.account.id.uuid()).await, (100, 0, 0));
    world.balanced().await;
}

async fn what_stands_outlives_every_replica(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, Some(90)).await;
    let (hold, object) = batch(&world, &key, 70).await;
    assert!(ledger.shutdown(SHUTDOWN).await);
    let ledger = world.ledger(quick()).await;
    let balance = ledger.balance(key.account.id).await.unwrap();
    assert_eq!(
        (balance.available, balance.held, balance.total),
        (n(30), n(70), n(100))
    );
    let key_record = record(&ledger, &key).await;
    let spent = world.spend(&ledger, &key_record, 21, 21).await;
    assert_eq!(spent.unwrap_err().available, n(20), "of the key's limit");
    let facts = world.facts(&key_record);
    let settled = settlement(&facts, hold.holder(), 25, 0);
    for _ in 0..2 {
        let settle = world.store.settle_standing(&hold, [settled.clone()]);
        settle.await.unwrap();
    }
    let stands = world.store.standing_for(&object).await.unwrap().unwrap();
    assert_eq!((stands.amount, stands.owner), (n(45), hold.owner));
    let balance = ledger.balance(key.account.id).await.unwrap();
    assert_eq!((balance.available, balance.held), (n(30), n(45)));
    world.balanced().await;
    world.store.end_standing(&stands).await.unwrap();
    assert_eq!(world.store.standing_for(&object).await.unwrap(), None);
    assert!(ledger.shutdown(SHUTDOWN).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (75, 0, 25));
    assert_eq!(world.budget(key.key.id.uuid()).await, (65, 0, 25));
    world.balanced().await;
}

async fn credit_that_lies_idle_comes_back_for_it(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1_000, None).await;
    let key_record = record(&ledger, &key).await;
    world.spend(&ledger, &key_record, 10, 10).await.unwrap();
    flushed(&ledger).await;
    let (hold, _) = batch(&world, &key, 990).await;
    assert_eq!(hold.amount, n(990));
    world.store.end_standing(&hold).await.unwrap();
    assert!(ledger.shutdown(SHUTDOWN).await);
    world.balanced().await;
}

async fn a_hold_grows_all_or_none(world: World) {
    let key = world.key(100, None).await;
    let (hold, object) = batch(&world, &key, 60).await;
    let raise = async |hold: &StandingHold, to: i64| {
        let raised = world.store.raise_standing(hold, false, n(to)).await;
        raised.unwrap()
    };
    assert!(matches!(raise(&hold, 101).await, Stood::Short(_)));
    assert_eq!(world.budget(key.account.id.uuid()).await, (40, 60, 0));
    assert_eq!(held(raise(&hold, 80).await).amount, n(80));
    assert_eq!(
        held(raise(&hold, 10).await).amount,
        n(60),
        "it never shrinks"
    );
    assert_eq!(world.budget(key.account.id.uuid()).await, (20, 80, 0));
    world.store.end_standing(&hold).await.unwrap();
    // One that has ended begins anew.
    let again = StandingHold::ended(&object);
    assert_eq!(again.amount, Credits::ZERO);
    assert_eq!(held(raise(&again, 30).await).amount, n(30));
    assert_eq!(world.budget(key.account.id.uuid()).await, (70, 30, 0));
    world.balanced().await;
}

async fn one_of_many_looks_after_a_hold(world: World) {
    let key = world.key(100, None).await;
    let (hold, object) = batch(&world, &key, 60).await;
    let nobodys = held(world.store.stand(owner(&key), false, n(1)).await.unwrap());
    let soon = world.store.unattended(Duration::from_secs(60), 8).await;
    assert!(soon.unwrap().is_empty());
    let mut found = world.store.unattended(Duration::ZERO, 8).await.unwrap();
    found.sort_by_key(|one| one.object.is_none());
    let holders: Vec<_> = found.iter().map(|one| one.hold.holder()).collect();
    assert_eq!(holders, [hold.holder(), nobodys.holder()]);
    assert_eq!(found[0].object.as_ref(), Some(&object));
    let again = world.store.unattended(Duration::from_secs(60), 8).await;
    assert!(again.unwrap().is_empty());
}

on_both!(
    c1_one_of_many_stands,
    what_stands_outlives_every_replica,
    credit_that_lies_idle_comes_back_for_it,
    a_hold_grows_all_or_none,
    one_of_many_looks_after_a_hold
);
