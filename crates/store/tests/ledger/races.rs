//! Many at once on credit for few: exactly as many as were paid for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::Barrier;

use crate::world::{World, flushed, hold_from, n, on_both, quick, settlement, soon};
use billing::rules::EntryKind;
use store::Ledger;

/// 200 requests, released together over these ledgers, each of `price`; how many were served.
async fn race(world: &Arc<World>, ledgers: &[Ledger], secret: &str, price: i64) -> u32 {
    let barrier = Arc::new(Barrier::new(200));
    let served = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let (world, ledger) = (Arc::clone(world), ledgers[i % ledgers.len()].clone());
            let (barrier, served) = (Arc::clone(&barrier), Arc::clone(&served));
            let secret = secret.to_owned();
            tokio::spawn(async move {
                let permit = ledger.reserve().unwrap();
                barrier.wait().await;
                let key = ledger.authenticate(&secret).await.unwrap();
                let Ok(held) = hold_from(&ledger, &key.path, n(price), soon()).await else {
                    return;
                };
                tokio::task::yield_now().await;
                permit.send(settlement(&world.facts(&key), held.replica(), price, 0));
                held.spend(n(price));
                served.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    served.load(Ordering::Relaxed)
}

async fn c1_200_at_once_on_credit_for_20(world: World) {
    let world = Arc::new(world);
    let ledger = world.ledger(quick()).await;
    let key = world.key(20 * 7, None).await;
    assert_eq!(
        race(
            &world,
            std::slice::from_ref(&ledger),
            key.secret.expose(),
            7
        )
        .await,
        20
    );
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 0);
    assert_eq!(ledger.stats().holds_open, 0);
    world.balanced().await;
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (0, 0, 140));
}

async fn c4_200_at_once_on_three_replicas(world: World) {
    let world = Arc::new(world);
    let mut ledgers = Vec::new();
    for _ in 0..3 {
        ledgers.push(world.other_ledger(quick()).await);
    }
    let key = world.key(20 * 7, None).await;
    assert_eq!(race(&world, &ledgers, key.secret.expose(), 7).await, 20);
    for ledger in &ledgers {
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
    }
    assert_eq!(world.budget(key.account.id.uuid()).await, (0, 0, 140));
    world.balanced().await;
}

async fn c4_a_key_limit_holds_on_three_replicas(world: World) {
    let world = Arc::new(world);
    let mut ledgers = Vec::new();
    for _ in 0..3 {
        ledgers.push(world.other_ledger(quick()).await);
    }
    let key = world.key(100_000, Some(20 * 7)).await;
    assert_eq!(race(&world, &ledgers, key.secret.expose(), 7).await, 20);
    for ledger in &ledgers {
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
    }
    assert_eq!(world.budget(key.key.id.uuid()).await, (0, 0, 140));
    assert_eq!(world.total(key.account.id).await, 100_000 - 140);
    world.balanced().await;
}

async fn l7_credits_arrive_while_all_are_spending(world: World) {
    let world = Arc::new(world);
    let ledgers = [
        world.other_ledger(quick()).await,
        world.other_ledger(quick()).await,
    ];
    let key = world.key(500, None).await;
    let topping = {
        let (world, account) = (Arc::clone(&world), key.account.id);
        tokio::spawn(async move {
            for _ in 0..20 {
                let credits = crate::admin::credits(25, EntryKind::Purchase);
                world
                    .store
                    .add_credits(account, credits, None)
                    .await
                    .unwrap();
            }
        })
    };
    let mut served = 0;
    while !topping.is_finished() {
        served += race(&world, &ledgers, key.secret.expose(), 1).await;
    }
    topping.await.unwrap();
    for _ in 0..10 {
        served += race(&world, &ledgers, key.secret.expose(), 1).await;
        if served == 1000 {
            break;
        }
    }
    assert_eq!(served, 1000, "all that was paid for, and no more");
    for ledger in &ledgers {
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
    }
    assert_eq!(world.budget(key.account.id.uuid()).await, (0, 0, 1000));
    world.balanced().await;
}

on_both!(
    c1_200_at_once_on_credit_for_20,
    c4_200_at_once_on_three_replicas,
    c4_a_key_limit_holds_on_three_replicas,
    l7_credits_arrive_while_all_are_spending,
);
