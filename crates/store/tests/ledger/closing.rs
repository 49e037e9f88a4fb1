//! Months are closed: exported, summed up and dropped, and every proof holds before and after.

use std::{sync::Arc, time::Duration};

use billing::{ReplicaId, RequestFacts, RequestId};
use jiff::{Timestamp, ToSpan as _};
use store::{
    ChargeFilter, ClosedMonth, GroupBy, KeyRecord, Ledger, Month, Page, ResolvedAs, StoreError,
    UsageSum,
};
use uuid::Uuid;

use crate::world::{World, checkpoint, flushed, n, on_both, quick, settlement};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The month so many before this one.
pub(crate) fn months_ago(months: i64) -> Month {
    let this = Month::of(Timestamp::now()).start().unwrap();
    let zoned = this.to_zoned(jiff::tz::TimeZone::UTC);
    Month::of(zoned.checked_sub(months.months()).unwrap().timestamp())
}

/// A request of this key that was admitted then.
pub(crate) fn facts_at(world: &World, key: &KeyRecord, at: Timestamp) -> Arc<RequestFacts> {
    let ms = u64::try_from(at.as_millisecond()).unwrap();
    let random = *Uuid::now_v7().as_bytes();
    let random = std::array::from_fn(|i| random[i + 6]);
    let id = uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid();
    let mut facts = (*world.facts(key)).clone();
    facts.request_id = RequestId::from_uuid(id);
    Arc::new(facts)
}

/// Books a request that nothing was held for.
pub(crate) async fn settle(ledger: &Ledger, facts: &Arc<RequestFacts>, cost: i64) {
    let lease = ledger.escrow().replica();
    ledger
        .reserve()
        .unwrap()
        .send(settlement(facts, lease, 0, cost));
    flushed(ledger).await;
}

pub(crate) async fn export(world: &World, month: Month) -> Vec<u8> {
    let mut file = Vec::new();
    world.store.export_month(month, &mut file).await.unwrap();
    file
}

pub(crate) async fn close(world: &World, month: Month) -> ClosedMonth {
    let file = export(world, month).await;
    world
        .store
        .close_month(month, &mut file.as_slice(), 35 * DAY)
        .await
        .unwrap()
}

/// Everything that a closing must not change.
async fn truth(world: &World, keys: &[&store::CreatedKey]) -> (Vec<String>, Vec<UsageSum>) {
    let audit = world.balanced().await;
    let mut said = vec![format!("{:?}", audit.house_losses)];
    for key in keys {
        said.push(world.total(key.account.id).await.to_string());
        for id in [key.account.id.uuid(), key.key.id.uuid()] {
            said.push(format!("{:?}", world.budget(id).await));
        }
    }
    let by = [
        GroupBy::Month,
        GroupBy::Model,
        GroupBy::Provider,
        GroupBy::Key,
        GroupBy::Account,
        GroupBy::End,
    ];
    let sums = world
        .store
        .usage(&ChargeFilter::default(), &by.into())
        .await
        .unwrap();
    (said, sums)
}

/// Two months of two accounts; of the older one Postgres made no partition.
async fn closing_changes_no_balance(world: World) {
    let ledger = world.ledger(quick()).await;
    let rich = world.key(1000, Some(500)).await;
    let poor = world.key(20, None).await;
    let (older, old) = (months_ago(5), months_ago(4));
    make_partition(&world, old).await;
    for key in [&rich, &poor] {
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        for month in [older, old] {
            // The poor one cannot pay the last: the operator bears a part.
            for cost in [3, 9] {
                let at = month.start().unwrap() + 50.hours();
                let facts = facts_at(&world, &record, at);
                settle(&ledger, &facts, cost).await;
            }
        }
        let _ = world.spend(&ledger, &record, 1, 1).await;
    }
    // Its lease is gone, and so is its credit.
    let record = ledger.authenticate(poor.secret.expose()).await.unwrap();
    let facts = facts_at(&world, &record, old.start().unwrap() + 51.hours());
    let gone = ReplicaId::from_uuid(Uuid::nil());
    let permit = ledger.reserve().unwrap();
    permit.send(settlement(&facts, gone, 0, 2));
    flushed(&ledger).await;
    let before = truth(&world, &[&rich, &poor]).await;
    assert_eq!(
        before.0[0],
        "{\"late_settlement\": Credits(2), \"usage_above_hold\": Credits(4)}"
    );

    let closed = close(&world, old).await;
    assert_eq!((closed.export.sums.charges, closed.closings), (5, 2));
    assert_eq!(closed.entries, 2);
    assert_eq!(truth(&world, &[&rich, &poor]).await, before);
    let closed = close(&world, older).await;
    assert_eq!(closed.export.sums.charged, n(24));
    assert_eq!(truth(&world, &[&rich, &poor]).await, before);

    // The charges are gone, and what took their place is on the account's ledger.
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 1);
    let entries = world.store.entries(rich.account.id, Page::default()).await;
    let entries = entries.unwrap().data;
    let listed: Vec<_> = entries
        .iter()
        .map(|e| (e.kind, e.amount.nanos(), e.reference.clone()))
        .collect();
    let of = |month: Month| Some(format!("charges of {month}"));
    assert_eq!(listed[0].0, "charge");
    assert!(listed.contains(&("closing", -12, of(old))));
    assert!(listed.contains(&("closing", -12, of(older))));
    // It goes on as before.
    let record = ledger.authenticate(rich.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 5, 5).await.unwrap();
    flushed(&ledger).await;
    world.balanced().await;
    assert!(matches!(
        world.store.export_month(old, &mut Vec::new()).await,
        Err(StoreError::NotClosable { .. })
    ));
    if world.is_postgres() {
        let gone = format!(
            "SELECT COUNT(*) FROM pg_class WHERE relname = 'charges_{}'",
            old.to_string().replace('-', "_")
        );
        assert_eq!(world.number(&gone).await, 0);
    }
    parts_of_closed_months_are_not_summed(&world, old).await;
}

async fn parts_of_closed_months_are_not_summed(world: &World, closed: Month) {
    let (start, end) = (
        closed.start().unwrap(),
        closed.next().unwrap().start().unwrap(),
    );
    let of = async |from, to| {
        let filter = ChargeFilter {
            from: Some(from),
            to: Some(to),
            ..ChargeFilter::default()
        };
        world.store.usage(&filter, &[GroupBy::Day].into()).await
    };
    let whole = of(start, end).await.unwrap();
    assert_eq!((whole.len(), whole[0].requests), (1, 5));
    assert_eq!(whole[0].day, Some(closed.to_string()));
    for (from, to, field) in [
        (start + 1.hour(), end, "from"),
        (start, end - 1.hour(), "to"),
    ] {
        let refused = of(from, to).await.unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { field: f, .. } if f == field));
    }
}

async fn make_partition(world: &World, month: Month) {
    if world.is_postgres() {
        world
            .raw(&format!("SELECT make_charges_month('{month}-01')"))
            .await;
    }
}

async fn what_is_in_the_way_of_closing_is_said(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let old = months_ago(4);
    let at = old.start().unwrap() + 50.hours();
    settle(&ledger, &facts_at(&world, &record, at), 5).await;
    settle(&ledger, &facts_at(&world, &record, at), 6).await;
    let good = String::from_utf8(export(&world, old).await).unwrap();
    let try_with = async |month: Month, file: &str| {
        let refused = world
            .store
            .close_month(month, &mut file.as_bytes(), 35 * DAY)
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(world.number("SELECT COUNT(*) FROM closed_months").await, 0);
        world.balanced().await;
        refused
    };
    for month in [months_ago(0), months_ago(1), months_ago(-1)] {
        assert!(try_with(month, &good).await.contains("over for 35 days"));
    }
    // The file must be the month, byte for byte.
    let lines: Vec<&str> = good.lines().collect();
    assert_eq!(lines.len(), 3);
    for (file, said) in [
        (String::new(), "line 1"),
        (good.replace("\"completion\":6", "\"completion\":7"), "line"),
        (format!("{}\n{}\n", lines[1], lines[0]), "line 1"),
        (format!("{}\n{}\n", lines[0], lines[1]), "line 3"),
        (good.replace("\"sha256\":\"", "\"sha256\":\"0"), "line 3"),
        (good.replace(&old.to_string(), "2001-01"), "line"),
        (format!("{good}\n"), "line 4"),
    ] {
        let refused = try_with(old, &file).await;
        assert!(refused.contains(said), "{refused}");
    }
    // Refused or not, the month stays open: a late settlement is booked, and the file is stale.
    settle(&ledger, &facts_at(&world, &record, at), 1).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 3);
    assert!(
        try_with(old, &good)
            .await
            .contains("export the month again")
    );
    // A request that is not booked yet.
    let facts = facts_at(&world, &record, at);
    ledger.checkpoint(checkpoint(&facts, ledger.escrow().replica(), 1));
    crate::world::eventually("the checkpoint is written", async || {
        world.number("SELECT COUNT(*) FROM checkpoints").await == 1
    })
    .await;
    assert!(
        try_with(old, &good)
            .await
            .contains(&facts.request_id.to_string())
    );
    world.raw("DELETE FROM checkpoints").await;
    // A replica that died without having been reaped.
    let replica = world.literal(Uuid::from_u128(5));
    world
        .raw(&format!(
            "INSERT INTO replicas VALUES ({replica}, 'alive', 2, 0, 1000000000000000, 'h', 1)"
        ))
        .await;
    world
        .raw("UPDATE replicas SET ttl = 1 WHERE host = 'h'")
        .await;
    let lost = world
        .store
        .close_month(old, &mut good.as_bytes(), 35 * DAY)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        lost.contains("was lost") || lost.contains("export the month again"),
        "{lost}"
    );
    world.raw("DELETE FROM replicas WHERE host = 'h'").await;
    close(&world, old).await;
    let again = world
        .store
        .close_month(old, &mut good.as_bytes(), 35 * DAY)
        .await;
    assert!(again.unwrap_err().to_string().contains("closed already"));
    world.balanced().await;
}

/// A settlement of a month that is closed cannot be told from one that was booked before.
async fn late_settlements_of_closed_months_are_put_aside(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let old = months_ago(4);
    let at = old.start().unwrap() + 50.hours();
    let booked = facts_at(&world, &record, at);
    settle(&ledger, &booked, 5).await;
    close(&world, old).await;
    let late: Vec<_> = (0..3).map(|_| facts_at(&world, &record, at)).collect();
    for facts in [&booked].into_iter().chain(&late) {
        settle(&ledger, facts, 5).await;
    }
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 0);
    assert_eq!(world.total(key.account.id).await, 995, "nothing twice");
    assert_eq!(ledger.stats().dead_settlements, 4);
    let store = &world.store;
    let dead = store
        .dead_settlements(false, Page::default())
        .await
        .unwrap();
    assert_eq!(dead.data.len(), 4);
    assert!(dead.data.iter().all(|d| d.problem.contains("is closed")));
    assert!(!store.audit().await.unwrap().balanced);

    for (facts, way, charged, loss) in [
        (&booked, ResolvedAs::Drop, 0, 0),
        (&late[0], ResolvedAs::Charge, 5, 0),
        (&late[1], ResolvedAs::HouseLoss, 0, 5),
        (&late[2], ResolvedAs::Charge, 5, 0),
    ] {
        let done = store.resolve_settlement(facts.request_id, way, "looked it up");
        let done = done.await.unwrap().resolution.unwrap();
        assert_eq!(
            (done.resolved_as, done.charged, done.house_loss),
            (way, n(charged), n(loss))
        );
        for again in ResolvedAs::ALL {
            let again = store
                .resolve_settlement(facts.request_id, again, "again")
                .await;
            assert!(matches!(again, Err(StoreError::NotResolvable { .. })));
        }
    }
    let audit = world.balanced().await;
    assert_eq!(audit.house_losses.get("resolved"), Some(&n(5)));
    assert_eq!(world.total(key.account.id).await, 985);
    assert_eq!(world.budget(key.key.id.uuid()).await.2, 15);
    // Sent once more, all of them are known.
    for facts in [&booked].into_iter().chain(&late) {
        settle(&ledger, facts, 5).await;
    }
    assert_eq!(world.total(key.account.id).await, 985);
    world.balanced().await;
    assert!(
        store
            .dead_settlements(false, Page::default())
            .await
            .unwrap()
            .data
            .is_empty()
    );
    assert_eq!(
        store
            .dead_settlements(true, Page::default())
            .await
            .unwrap()
            .data
            .len(),
        4
    );
    let nobody = RequestId::from_uuid(Uuid::from_u128(9));
    for (request, note) in [
        (nobody, "n"),
        (booked.request_id, " "),
        (booked.request_id, "a\nb"),
    ] {
        let refused = store
            .resolve_settlement(request, ResolvedAs::Drop, note)
            .await;
        assert!(refused.is_err(), "{note:?}");
    }
}

/// Ten people decide about one settlement at once: one decision counts.
async fn a_settlement_is_resolved_once(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let old = months_ago(4);
    let at = old.start().unwrap() + 50.hours();
    settle(&ledger, &facts_at(&world, &record, at), 5).await;
    close(&world, old).await;
    let late = facts_at(&world, &record, at);
    settle(&ledger, &late, 7).await;
    let barrier = Arc::new(tokio::sync::Barrier::new(10));
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (store, barrier) = (world.store.clone(), Arc::clone(&barrier));
            let id = late.request_id;
            tokio::spawn(async move {
                barrier.wait().await;
                let done = store.resolve_settlement(id, ResolvedAs::Charge, "mine");
                done.await.is_ok()
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += i32::from(task.await.unwrap());
    }
    assert_eq!(done, 1);
    assert_eq!(world.total(key.account.id).await, 988);
    world.balanced().await;
}

/// Requests run and audits are made while months are closed: no proof ever fails.
async fn months_are_closed_while_replicas_serve(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(100_000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let months: Vec<_> = (3..9).map(months_ago).collect();
    for month in &months {
        make_partition(&world, *month).await;
        for _ in 0..3 {
            let at = month.start().unwrap() + 50.hours();
            settle(&ledger, &facts_at(&world, &record, at), 5).await;
        }
    }
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let audits = {
        let (store, done) = (world.store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut audits = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let audit = store.audit().await.unwrap();
                assert!(audit.balanced, "{:#?}", audit.checks);
                audits += 1;
            }
            audits
        })
    };
    let mut spent = 0;
    for month in &months {
        let closing = close(&world, *month);
        let serving = async {
            for _ in 0..20 {
                world.spend(&ledger, &record, 2, 2).await.unwrap();
            }
        };
        let (closed, ()) = tokio::join!(closing, serving);
        assert_eq!(closed.export.sums.charges, 3);
        spent += 15 + 40;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(audits.await.unwrap() > 0);
    flushed(&ledger).await;
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.total(key.account.id).await, 100_000 - spent);
    world.balanced().await;
}

on_both!(
    closing_changes_no_balance,
    what_is_in_the_way_of_closing_is_said,
    late_settlements_of_closed_months_are_put_aside,
    a_settlement_is_resolved_once,
    months_are_closed_while_replicas_serve,
);
