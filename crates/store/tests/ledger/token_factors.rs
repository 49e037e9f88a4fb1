//! What answers teach about tokenizers: joined over replicas, kept, and never lost to a race.

use store::NewTokenFactor;
use tokens::{Estimate, Side};

use crate::world::{World, on_both, open};

fn new(model: &str, side: Side, millionths: u32, samples: u32) -> NewTokenFactor<'_> {
    NewTokenFactor {
        provider: "p",
        model,
        encoding: "o200k_base",
        side,
        estimate: Estimate::new(millionths, samples).unwrap(),
    }
}

async fn replicas_learn_together(world: World) {
    let other = if world.is_postgres() {
        open(&world.url).await
    } else {
        world.store.clone()
    };
    assert!(world.store.token_factors().await.unwrap().is_empty());
    world.store.learn_token_factors(&[]).await.unwrap();
    let first = [
        new("m", Side::Prompt, 1_300_000, 20),
        new("m", Side::Completion, 1_000_000, 5),
        new("n", Side::Prompt, 900_000, 1),
    ];
    world.store.learn_token_factors(&first).await.unwrap();
    let second = [new("m", Side::Prompt, 1_200_000, 20)];
    other.learn_token_factors(&second).await.unwrap();
    let known = world.store.token_factors().await.unwrap();
    let seen: Vec<_> = known
        .iter()
        .map(|k| (&*k.model, k.side, k.estimate.millionths(), k.compared))
        .collect();
    assert_eq!(
        seen,
        [
            ("m", Side::Completion, 1_000_000, 5),
            ("m", Side::Prompt, 1_250_000, 40),
            ("n", Side::Prompt, 900_000, 1),
        ]
    );
    assert_eq!(known, other.token_factors().await.unwrap());
}

async fn many_at_once_lose_nothing(world: World) {
    let names = ["a", "b", "c"];
    world
        .store
        .learn_token_factors(&names.map(|name| new(name, Side::Prompt, 1_000_000, 1)))
        .await
        .unwrap();
    let tasks = (0..12).map(|n| {
        let store = world.store.clone();
        tokio::spawn(async move {
            let mut names = names;
            names.rotate_left(n % 3);
            let all = names.map(|name| new(name, Side::Prompt, 1_000_000, 2));
            store.learn_token_factors(&all).await.unwrap();
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    for known in world.store.token_factors().await.unwrap() {
        assert_eq!(known.compared, 25, "{}", known.model);
        assert_eq!(known.estimate.samples(), 25, "{}", known.model);
    }
}

on_both!(replicas_learn_together, many_at_once_lose_nothing);
