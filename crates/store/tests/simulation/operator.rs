//! The operator of a run: top-ups, refunds, limits, revocations; each call until it is answered.

use std::{sync::Arc, time::Duration};

use billing::{Credits, rules::EntryKind};
use jiff::Timestamp;
use store::{
    AccountPatch, IdempotencyKey, KeyPatch, NewCredits, NewKey, Store, StoreError, simulation::Node,
};

use crate::{dice::Dice, trace::pass, world::World};

/// Calls until the run ends.
pub(crate) async fn operator(world: Arc<World>, mut dice: Dice) {
    let node = Node::new(&world.database, world.next_run());
    let store = loop {
        if let Ok(store) = Store::simulated(&node).await {
            break store;
        }
        pass(Duration::from_millis(200)).await;
    };
    let mut calls = 0;
    while !world.over() {
        let pause = dice.ms(50..1500);
        pass(pause).await;
        calls += 1;
        match dice.of(0..10) {
            0..5 => credits(&world, &store, &mut dice, calls).await,
            5 => withdraw(&world, &store, &mut dice, calls).await,
            6 => revoke(&world, &store, &mut dice).await,
            7 => limit(&world, &store, &mut dice).await,
            8 => disable(&world, &store, &mut dice).await,
            _ => overdraft(&world, &store, &mut dice).await,
        }
    }
}

/// Asks until there is an answer that is not "try again".
macro_rules! until_answered {
    ($call:expr) => {
        loop {
            match $call.await {
                Err(error) if error.is_unavailable() => {
                    pass(Duration::from_millis(150)).await;
                }
                answer => break answer,
            }
        }
    };
}

async fn credits(world: &World, store: &Store, dice: &mut Dice, calls: u32) {
    let (account, expires) = world.an_account(dice);
    let expires_at = (expires && dice.chance(6000)).then(|| {
        let us = world.sky.wall_us() + dice.of(1_000_000..9_000_000);
        Timestamp::from_microsecond(us).unwrap()
    });
    let credits = NewCredits {
        amount: Credits::from_nanos(dice.of(1..400)),
        kind: EntryKind::Purchase,
        expires_at,
        reference: None,
        note: None,
    };
    let once = IdempotencyKey::new(&format!("call-{calls}")).unwrap();
    let answer = until_answered!(store.add_credits(account, credits.clone(), Some(&once)));
    match answer {
        Ok(credited) => {
            let replayed = credited.replayed;
            world.trace.say(format!(
                "{} credits, replayed: {replayed}",
                credits.amount.nanos()
            ));
            world.oracle.credited(account, credits.amount.nanos());
        }
        // A clock that jumped ahead, or a call that took too long.
        Err(StoreError::Invalid {
            field: "expires_at",
            ..
        }) => {}
        Err(error) => world.oracle.blame(format!("a top-up was refused: {error}")),
    }
}

async fn withdraw(world: &World, store: &Store, dice: &mut Dice, calls: u32) {
    let (account, _) = world.an_account(dice);
    let credits = NewCredits {
        amount: Credits::from_nanos(-dice.of(1..150)),
        kind: if dice.chance(5000) {
            EntryKind::Refund
        } else {
            EntryKind::Adjustment
        },
        expires_at: None,
        reference: None,
        note: None,
    };
    let once = IdempotencyKey::new(&format!("call-{calls}")).unwrap();
    match until_answered!(store.add_credits(account, credits.clone(), Some(&once))) {
        Ok(_) => {
            world
                .trace
                .say(format!("{} credits withdrawn", credits.amount.nanos()));
            world.oracle.credited(account, credits.amount.nanos());
        }
        Err(StoreError::BelowZero { .. }) => {}
        Err(error) => world
            .oracle
            .blame(format!("a withdrawal was refused: {error}")),
    }
}

/// Revokes a key; its account gets another one.
async fn revoke(world: &World, store: &Store, dice: &mut Dice) {
    let Some((number, key)) = world.a_key_to_revoke(dice) else {
        return;
    };
    match until_answered!(store.revoke_key(key.key.id)) {
        Ok(_) => {
            world.trace.say(format!("{} is revoked", key.key.id));
            world.oracle.barred(number);
        }
        Err(error) => world
            .oracle
            .blame(format!("a revocation was refused: {error}")),
    }
    // A call without an idempotency key may be answered by silence and have happened: then there
    // is a key that nobody uses.
    let another = NewKey {
        name: "another".into(),
        account_id: Some(key.key.account_id),
        limit: key.key.limit,
        ..NewKey::default()
    };
    if let Ok(key) = store.create_key(another).await {
        world.add_key(key);
    }
}

async fn limit(world: &World, store: &Store, dice: &mut Dice) {
    let Some((_, key)) = world.a_limited_key(dice) else {
        return;
    };
    let patch = KeyPatch {
        limit: Some(Some(Credits::from_nanos(dice.of(0..4000)))),
        ..KeyPatch::default()
    };
    if let Err(error) = until_answered!(store.update_key(key.key.id, patch.clone())) {
        world.oracle.blame(format!("a limit was refused: {error}"));
    }
}

async fn disable(world: &World, store: &Store, dice: &mut Dice) {
    let (account, _) = world.an_account(dice);
    for disabled in [true, false] {
        let patch = AccountPatch {
            disabled: Some(disabled),
            ..AccountPatch::default()
        };
        // Before the call: from the moment it is sent the account may work again.
        if !disabled {
            world.oracle.enabled(account);
        }
        if let Err(error) = until_answered!(store.update_account(account, patch.clone())) {
            world
                .oracle
                .blame(format!("an account could not be disabled: {error}"));
        }
        world.trace.say(format!("{account} disabled: {disabled}"));
        if disabled {
            world.oracle.disabled(account);
        }
        let pause = dice.ms(100..3000);
        pass(pause).await;
    }
}

async fn overdraft(world: &World, store: &Store, dice: &mut Dice) {
    let (account, _) = world.an_account(dice);
    let overdraft = dice.of(0..300);
    let patch = AccountPatch {
        overdraft: Some(Credits::from_nanos(overdraft)),
        ..AccountPatch::default()
    };
    match until_answered!(store.update_account(account, patch.clone())) {
        Ok(_) | Err(StoreError::OverdraftInUse { .. }) => {}
        Err(error) => world
            .oracle
            .blame(format!("an overdraft was refused: {error}")),
    }
}
