//! Settlements: exactly once, exact to the nano-credit, and never lost.

use std::time::Duration;

use billing::{Counted, End, RequestId, Reserved};
use store::{ChargeFilter, CreatedKey, Ledger, Page};
use tokens::Usage;
use uuid::Uuid;

use crate::world::{
    World, checkpoint, eventually, flushed, hold_from, n, on_both, quick, settlement, soon, usage,
};

async fn send(ledger: &Ledger, settlement: billing::Settlement) {
    ledger.reserve().unwrap().send(settlement);
}

async fn x1_the_same_settlement_twice_is_one_charge(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, Some(80)).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(30), soon())
        .await
        .unwrap();
    let once = settlement(&world.facts(&record), held.replica(), 25, 0);
    // In one batch, and in two.
    let permits = [ledger.reserve().unwrap(), ledger.reserve().unwrap()];
    for permit in permits {
        permit.send(once.clone());
    }
    held.spend(n(25));
    flushed(&ledger).await;
    send(&ledger, once).await;
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 75);
    assert_eq!(world.store.key(key.key.id).await.unwrap().used, n(25));
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (75, 0, 25));
    assert_eq!(world.budget(key.key.id.uuid()).await, (55, 0, 25));
    world.balanced().await;
}

async fn what_is_sold_by_the_piece_is_kept_and_summed(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let pieces = Usage {
        image_completion: 1,
        images: 2,
        milliseconds: 3,
        characters: 4,
        searches: 5,
        pages: 6,
        ..usage(9)
    };
    for (used, provider_cost, counted) in [
        (
            pieces,
            Some(n(7)),
            Some(Counted {
                prompt: 8,
                completion: 11,
            }),
        ),
        (usage(10), None, None),
    ] {
        let held = hold_from(&ledger, &record.path, n(10), soon())
            .await
            .unwrap();
        let mut one = settlement(&world.facts(&record), held.replica(), 10, 0);
        (one.usage, one.provider_cost, one.counted) = (used, provider_cost, counted);
        send(&ledger, one.clone()).await;
        held.spend(n(10));
        flushed(&ledger).await;
        let kept = world
            .store
            .charge(key.account.id, one.facts.request_id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kept.usage, used);
        assert_eq!(kept.provider_cost, provider_cost.unwrap_or(n(10)));
        assert_eq!(kept.counted, counted);
    }
    let sums = world
        .store
        .usage(&ChargeFilter::default(), &[].into())
        .await
        .unwrap();
    let both = Usage {
        completion: pieces.completion + 10,
        ..pieces
    };
    assert_eq!((sums[0].usage, sums[0].cost), (both, n(20)));
    assert_eq!(sums[0].provider_cost, n(17));
    let drift = world.store.drift(&ChargeFilter::default()).await.unwrap();
    let [day] = &drift[..] else {
        panic!("{drift:?}");
    };
    assert_eq!((day.requests, day.reported_requests), (2, 2));
    assert_eq!(day.compared_requests, 1);
    assert_eq!((day.counted.prompt, day.reported.prompt), (8, 0));
    assert_eq!((day.counted.completion, day.reported.completion), (11, 10));
    assert_eq!((day.charged, day.provider_cost), (n(20), n(17)));
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    world.balanced().await;
}

async fn d6_usage_above_the_hold(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(30), soon())
        .await
        .unwrap();
    // Everything else goes back first, so that it can be collected from the account.
    eventually("idle credit is back", || async {
        world.budget(key.account.id.uuid()).await == (70, 30, 0)
    })
    .await;
    send(
        &ledger,
        settlement(&world.facts(&record), held.replica(), 30, 20),
    )
    .await;
    held.spend(n(30));
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 50);
    // More than there is: the account goes to zero, the operator bears the rest.
    let held = hold_from(&ledger, &record.path, n(40), soon())
        .await
        .unwrap();
    eventually("idle credit is back", || async {
        world.budget(key.account.id.uuid()).await == (10, 40, 50)
    })
    .await;
    send(
        &ledger,
        settlement(&world.facts(&record), held.replica(), 40, 25),
    )
    .await;
    held.spend(n(40));
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 0);
    let audit = world.balanced().await;
    assert_eq!(audit.house_losses["usage_above_hold"], n(15));
    assert_eq!(ledger.stats().house_losses["usage_above_hold"], n(15));
    let charge = &world
        .store
        .charges(&store::ChargeFilter::default(), Page::default())
        .await
        .unwrap()
        .data[0];
    assert_eq!(
        (charge.cost, charge.charged, charge.house_loss),
        (n(65), n(50), n(15))
    );
}

async fn o1_a_poisoned_settlement_stops_nobody(world: World) {
    world
        .raw(if world.is_postgres() {
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION 'poison' USING ERRCODE = 'check_violation'; END $$; \
         CREATE TRIGGER poison BEFORE INSERT ON charges FOR EACH ROW \
         WHEN (NEW.model = 'poison') EXECUTE FUNCTION poison()"
        } else {
            "CREATE TRIGGER poison BEFORE INSERT ON charges WHEN NEW.model = 'poison' \
         BEGIN SELECT RAISE(ABORT, 'poison'); END"
        })
        .await;
    let ledger = world.ledger(quick()).await;
    let key = world.key(1000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(110), soon())
        .await
        .unwrap();
    let permits: Vec<_> = (0..11).map(|_| ledger.reserve().unwrap()).collect();
    for (i, permit) in permits.into_iter().enumerate() {
        let mut facts = (*world.facts(&record)).clone();
        if i == 4 {
            facts.model = "poison".into();
        }
        let mut one = settlement(&facts.into(), held.replica(), 10, 0);
        if i == 7 {
            // Does not add up: the rules refuse it.
            one.capture.cost = n(11);
        }
        permit.send(one);
    }
    held.spend(n(110));
    flushed(&ledger).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 9);
    assert_eq!(
        world.number("SELECT COUNT(*) FROM dead_settlements").await,
        2
    );
    assert_eq!(ledger.stats().dead_settlements, 2);
    // The journal goes on.
    world.spend(&ledger, &record, 10, 10).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 10);
    let audit = world.store.audit().await.unwrap();
    let broken: Vec<_> = audit
        .checks
        .iter()
        .filter(|c| !c.ok)
        .map(|c| c.name)
        .collect();
    assert_eq!(broken, ["no_dead_settlements"], "not lost without a trace");
    // What they had held goes back to the customer when the replica ends.
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (900, 0, 100));
}

/// A replica that died with a request running; the request, and its hold.
async fn died(
    world: &World,
    credits: i64,
    hold: i64,
    consumed: Option<i64>,
) -> (
    store::CreatedKey,
    std::sync::Arc<billing::RequestFacts>,
    billing::ReplicaId,
) {
    let key = world.key(credits, Some(1000)).await;
    let ledger = world.other_ledger(quick()).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(hold), soon())
        .await
        .unwrap();
    let facts = world.facts(&record);
    if let Some(consumed) = consumed {
        ledger.checkpoint(checkpoint(&facts, held.replica(), 1));
        ledger.checkpoint(checkpoint(&facts, held.replica(), consumed));
        eventually("the checkpoint is written", || async {
            world.number("SELECT COUNT(*) FROM checkpoints").await == 1
                && world.number("SELECT cost FROM checkpoints").await == consumed
        })
        .await;
    }
    let replica = held.replica();
    // Not shut down: its tasks die, as with kill -9.
    std::mem::forget(held);
    drop(ledger);
    (key, facts, replica)
}

async fn reaped(world: &World, ledger: &Ledger) {
    let _ = ledger;
    eventually("the dead replica is reaped", || async {
        world
            .number("SELECT COUNT(*) FROM replicas WHERE state = 'reaped'")
            .await
            == 1
    })
    .await;
}

async fn the_reaper_charges_the_last_checkpoint(world: World) {
    let (key, facts, _) = died(&world, 100, 40, Some(15)).await;
    let ledger = world.ledger(quick()).await;
    reaped(&world, &ledger).await;
    assert_eq!(world.budget(key.account.id.uuid()).await, (85, 0, 15));
    assert_eq!(world.budget(key.key.id.uuid()).await, (985, 0, 15));
    let charge = world
        .store
        .charge(key.account.id, facts.request_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (charge.end, charge.cost, charge.charged),
        (End::GatewayLost, n(15), n(15))
    );
    assert_eq!(world.number("SELECT COUNT(*) FROM checkpoints").await, 0);
    assert_eq!(world.number("SELECT COUNT(*) FROM leases").await, 0);
    world.balanced().await;
    // All of it can be used again at once.
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 85, 85).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 0);
}

async fn a_late_settlement_is_taken_from_what_is_there(world: World) {
    let (key, facts, lease) = died(&world, 100, 40, None).await;
    let ledger = world.ledger(quick()).await;
    reaped(&world, &ledger).await;
    assert_eq!(world.budget(key.account.id.uuid()).await, (100, 0, 0));
    // Somebody else spent most of it meanwhile.
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 90, 90).await.unwrap();
    flushed(&ledger).await;
    let late = settlement(&facts, lease, 40, 0);
    for _ in 0..2 {
        send(&ledger, late.clone()).await;
        flushed(&ledger).await;
    }
    assert_eq!(world.total(key.account.id).await, 0);
    let charge = world
        .store
        .charge(key.account.id, facts.request_id)
        .await
        .unwrap()
        .unwrap();
    assert!(charge.late);
    assert_eq!(
        (charge.cost, charge.charged, charge.house_loss),
        (n(40), n(10), n(30))
    );
    assert_eq!(
        world.balanced().await.house_losses["late_settlement"],
        n(30)
    );
}

async fn a_late_settlement_above_its_checkpoint_is_collected(world: World) {
    let (key, facts, lease) = died(&world, 100, 40, Some(15)).await;
    let ledger = world.ledger(quick()).await;
    reaped(&world, &ledger).await;
    let late = settlement(&facts, lease, 22, 0);
    for _ in 0..3 {
        send(&ledger, late.clone()).await;
        flushed(&ledger).await;
    }
    assert_eq!(world.total(key.account.id).await, 78, "collected once");
    let entry = newest_entry(&world, &key).await;
    assert_eq!((entry.kind, entry.amount), ("late_charge", n(-7)));
    let request = facts.request_id.to_string();
    assert!(entry.reference.unwrap().contains(&request));
    assert!(world.balanced().await.house_losses.is_empty());
}

async fn what_cannot_be_collected_late_is_the_operators(world: World) {
    let (key, facts, lease) = died(&world, 20, 18, Some(15)).await;
    let ledger = world.ledger(quick()).await;
    reaped(&world, &ledger).await;
    let late = settlement(&facts, lease, 18, 4);
    for _ in 0..3 {
        send(&ledger, late.clone()).await;
        flushed(&ledger).await;
    }
    assert_eq!(world.total(key.account.id).await, 0, "never below zero");
    let entry = newest_entry(&world, &key).await;
    assert_eq!((entry.kind, entry.amount), ("late_charge", n(-5)));
    assert_eq!(
        world.balanced().await.house_losses["late_settlement"],
        n(2),
        "booked once"
    );
}

async fn newest_entry(world: &World, key: &CreatedKey) -> store::Entry {
    let page = world.store.entries(key.account.id, Page::default());
    page.await.unwrap().data.remove(0)
}

async fn a_late_settlement_below_its_checkpoint_gives_back(world: World) {
    let (key, facts, lease) = died(&world, 100, 40, Some(15)).await;
    let ledger = world.ledger(quick()).await;
    reaped(&world, &ledger).await;
    let late = settlement(&facts, lease, 12, 0);
    for _ in 0..3 {
        send(&ledger, late.clone()).await;
        flushed(&ledger).await;
    }
    assert_eq!(world.total(key.account.id).await, 88, "given back once");
    let entry = newest_entry(&world, &key).await;
    assert_eq!((entry.kind, entry.amount), ("adjustment", n(3)));
    world.balanced().await;
}

async fn a_replica_that_was_reaped_goes_on_as_a_new_one(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(40), soon())
        .await
        .unwrap();
    let before = ledger.escrow().replica();
    // Somebody with a wrong clock takes it for dead: its leases are gone.
    world
        .raw(
            "UPDATE budgets SET available = available + leased, leased = 0; \
             DELETE FROM leases; UPDATE replicas SET state = 'reaped'",
        )
        .await;
    send(
        &ledger,
        settlement(&world.facts(&record), held.replica(), 40, 0),
    )
    .await;
    held.spend(n(40));
    flushed(&ledger).await;
    assert_ne!(ledger.escrow().replica(), before);
    assert_eq!(world.total(key.account.id).await, 60);
    let charge = &world
        .store
        .charges(&store::ChargeFilter::default(), Page::default())
        .await
        .unwrap()
        .data[0];
    assert!(charge.late);
    assert!(Reserved::take(&record.path, n(1), std::time::Instant::now()).is_err());
    world.spend(&ledger, &record, 60, 60).await.unwrap();
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (0, 0, 100));
    world.balanced().await;
}

async fn o1_shutdown_writes_everything_and_gives_everything_back(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(10_000, Some(9_000)).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    for _ in 0..50 {
        world.spend(&ledger, &record, 20, 10).await.unwrap();
    }
    // One request is still running when the shutdown begins.
    let permit = ledger.reserve().unwrap();
    let held = hold_from(&ledger, &record.path, n(20), soon())
        .await
        .unwrap();
    let closing = {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.shutdown(Duration::from_secs(20)).await })
    };
    eventually("no more requests are taken", || async {
        ledger.reserve().is_err()
    })
    .await;
    assert!(!closing.is_finished(), "it waits for the running request");
    permit.send(settlement(&world.facts(&record), held.replica(), 7, 0));
    held.spend(n(7));
    assert!(closing.await.unwrap());
    assert_eq!(world.budget(key.account.id.uuid()).await, (9493, 0, 507));
    assert_eq!(world.budget(key.key.id.uuid()).await, (8493, 0, 507));
    assert_eq!(
        world
            .number("SELECT COUNT(*) FROM replicas WHERE state = 'closed'")
            .await,
        1
    );
    assert_eq!(world.number("SELECT COUNT(*) FROM leases").await, 0);
    world.balanced().await;
}

async fn a_charge_that_does_not_end_keeps_its_lease_at_shutdown(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let _permit = ledger.reserve().unwrap();
    let held = hold_from(&ledger, &record.path, n(40), soon())
        .await
        .unwrap();
    assert!(!ledger.shutdown(Duration::from_millis(50)).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (60, 40, 0));
    drop(held);
    world.balanced().await;
}

async fn permits_are_the_limit_of_what_is_in_flight(world: World) {
    let options = store::LedgerOptions {
        in_flight_max: 3,
        ..quick()
    };
    let ledger = world.ledger(options).await;
    let permits: Vec<_> = (0..3).map(|_| ledger.reserve().unwrap()).collect();
    assert_eq!(ledger.reserve().unwrap_err(), store::NoPermit::Busy);
    assert_eq!(ledger.stats().in_flight, 3);
    drop(permits);
    ledger.reserve().unwrap();
}

async fn absurd_figures_are_kept_without_a_panic(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let mut facts = (*world.facts(&record)).clone();
    // An id that is no time at all.
    facts.request_id = RequestId::from_uuid(Uuid::max());
    let mut odd = settlement(&facts.into(), ledger.escrow().replica(), 0, 0);
    odd.usage.prompt = u64::MAX;
    odd.timings.duration_us = u64::MAX;
    odd.raw_usage = Some("nul \0 and \u{1f600} and \"quotes\"".into());
    send(&ledger, odd).await;
    let huge = settlement(
        &world.facts(&record),
        ledger.escrow().replica(),
        i64::MAX,
        0,
    );
    send(&ledger, huge).await;
    flushed(&ledger).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 2);
    assert_eq!(
        world.total(key.account.id).await,
        0,
        "all there was, the rest is the operator's"
    );
}

on_both!(
    what_is_sold_by_the_piece_is_kept_and_summed,
    x1_the_same_settlement_twice_is_one_charge,
    d6_usage_above_the_hold,
    o1_a_poisoned_settlement_stops_nobody,
    the_reaper_charges_the_last_checkpoint,
    a_late_settlement_is_taken_from_what_is_there,
    a_late_settlement_above_its_checkpoint_is_collected,
    what_cannot_be_collected_late_is_the_operators,
    a_late_settlement_below_its_checkpoint_gives_back,
    a_replica_that_was_reaped_goes_on_as_a_new_one,
    o1_shutdown_writes_everything_and_gives_everything_back,
    a_charge_that_does_not_end_keeps_its_lease_at_shutdown,
    permits_are_the_limit_of_what_is_in_flight,
    absurd_figures_are_kept_without_a_panic,
);
