//! Idempotency keys of requests: one claim among all replicas, gone with a dead replica, never charged twice.

use std::{sync::Arc, time::Duration};

use billing::{ReplicaId, RequestId};
use store::{Claim, Claimed, CreatedKey, IdempotencyKey, KeepLimits, KeptAnswer, Page, Store};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::world::{
    World, eventually, flushed, hold_from, n, on_both, open, quick, settlement, soon,
};

const LIMITS: KeepLimits = KeepLimits {
    kept_for: Duration::from_secs(3600),
    keys_max: 1000,
    account_bytes_max: 1 << 20,
};

fn claim(store: &Store, key: &CreatedKey, replica: ReplicaId) -> Claim {
    let hash = store.request_hash("POST", "/v1/x", key.key.id, b"body");
    Claim {
        account: key.account.id,
        key: IdempotencyKey::new("k").unwrap(),
        hash: hash.unwrap(),
        request: RequestId::from_uuid(Uuid::now_v7()),
        replica,
    }
}

fn answer(body: &str) -> KeptAnswer {
    KeptAnswer {
        stream: true,
        max_tokens: Some(7),
        body: body.into(),
    }
}

async fn one_claim_of_many_is_granted(world: World) {
    let ledger = world.ledger(quick()).await;
    let other = if world.is_postgres() {
        open(&world.url).await
    } else {
        world.store.clone()
    };
    let key = world.key(100, None).await;
    let replica = ledger.escrow().replica();
    for _ in 0..5 {
        let barrier = Arc::new(Barrier::new(40));
        let claims = (0..40).map(|place| {
            let store = if place % 2 == 0 { &world.store } else { &other };
            let (store, barrier) = (store.clone(), barrier.clone());
            let claim = claim(&store, &key, replica);
            tokio::spawn(async move {
                barrier.wait().await;
                (store.claim(&claim, &LIMITS).await.unwrap(), claim)
            })
        });
        let claims: Vec<_> = claims.collect();
        let mut granted = Vec::new();
        for task in claims {
            match task.await.unwrap() {
                (Claimed::Granted, claim) => granted.push(claim),
                (Claimed::Running { .. }, _) => {}
                (other, _) => panic!("{other:?}"),
            }
        }
        assert_eq!(granted.len(), 1);
        world.store.release_claim(&granted[0]).await.unwrap();
    }
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
}

async fn only_who_has_the_key_can_answer_or_give_it_back(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let (first, second) = (
        claim(&world.store, &key, ledger.escrow().replica()),
        claim(&world.store, &key, ledger.escrow().replica()),
    );
    assert_eq!(
        world.store.claim(&first, &LIMITS).await.unwrap(),
        Claimed::Granted
    );
    // Its own claim again: the commit was in doubt.
    assert_eq!(
        world.store.claim(&first, &LIMITS).await.unwrap(),
        Claimed::Granted
    );
    world.store.release_claim(&second).await.unwrap();
    let theirs = answer("theirs");
    let kept = world.store.keep_answer(&second, Some(&theirs), &LIMITS);
    kept.await.unwrap();
    assert!(matches!(
        world.store.claim(&second, &LIMITS).await.unwrap(),
        Claimed::Running { request, .. } if request == first.request
    ));
    let mine = answer("mine");
    let kept = world.store.keep_answer(&first, Some(&mine), &LIMITS);
    kept.await.unwrap();
    assert_eq!(
        world.store.claim(&second, &LIMITS).await.unwrap(),
        Claimed::Answered {
            request: first.request,
            answer: mine
        }
    );
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
}

/// A replica that is taken for dead goes on: its client has run the request anew meanwhile.
async fn a_request_that_was_run_anew_is_not_charged_when_it_settles_late(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(40), soon())
        .await
        .unwrap();
    let facts = world.facts(&record);
    let before = Claim {
        request: facts.request_id,
        ..claim(&world.store, &key, ledger.escrow().replica())
    };
    assert_eq!(
        world.store.claim(&before, &LIMITS).await.unwrap(),
        Claimed::Granted
    );
    let old = ledger.escrow().replica();
    world
        .raw(
            "UPDATE budgets SET available = available + leased, leased = 0; \
             DELETE FROM leases; UPDATE replicas SET state = 'reaped'",
        )
        .await;
    let anew = claim(&world.store, &key, old);
    assert_eq!(
        world.store.claim(&anew, &LIMITS).await.unwrap(),
        Claimed::Granted
    );
    let late = settlement(&facts, held.replica(), 40, 0);
    ledger.reserve().unwrap().send(late);
    held.spend(n(40));
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 100, "it pays nothing");
    let all = store::ChargeFilter::default();
    let charges = world.store.charges(&all, Page::default());
    let charges = charges.await.unwrap().data;
    assert_eq!(
        (charges[0].charged, charges[0].house_loss, charges[0].late),
        (n(0), n(40), true)
    );
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 30, 30).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 70);
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    world.balanced().await;
}

async fn a_request_that_was_charged_is_not_run_anew(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(40), soon())
        .await
        .unwrap();
    let facts = world.facts(&record);
    let before = Claim {
        request: facts.request_id,
        ..claim(&world.store, &key, ledger.escrow().replica())
    };
    world.store.claim(&before, &LIMITS).await.unwrap();
    let settled = settlement(&facts, held.replica(), 40, 0);
    ledger.reserve().unwrap().send(settled);
    held.spend(n(40));
    // It ends without a word about the answer.
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    let anew = claim(&world.store, &key, ledger.escrow().replica());
    let not_kept = Claimed::NotKept {
        request: before.request,
    };
    for _ in 0..2 {
        assert_eq!(world.store.claim(&anew, &LIMITS).await.unwrap(), not_kept);
    }
    world.balanced().await;
}

async fn expired_keys_are_deleted(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let claim = claim(&world.store, &key, ledger.escrow().replica());
    let brief = KeepLimits {
        kept_for: Duration::from_millis(1),
        ..LIMITS
    };
    assert_eq!(
        world.store.claim(&claim, &brief).await.unwrap(),
        Claimed::Granted
    );
    eventually("the key is deleted", || async {
        let rows = "SELECT COUNT(*) FROM idempotent_requests";
        world.number(rows).await == 0
    })
    .await;
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
}

on_both!(
    one_claim_of_many_is_granted,
    only_who_has_the_key_can_answer_or_give_it_back,
    a_request_that_was_run_anew_is_not_charged_when_it_settles_late,
    a_request_that_was_charged_is_not_run_anew,
    expired_keys_are_deleted,
);
