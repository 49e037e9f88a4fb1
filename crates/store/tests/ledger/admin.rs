//! Accounts, credits and lists, as the operator uses them.

use billing::{Credits, rules::EntryKind};
use jiff::{Timestamp, ToSpan};
use store::{
    AccountPatch, ChargeFilter, GroupBy, IdempotencyKey, NewAccount, NewCredits, Page, StoreError,
};

use crate::world::{World, flushed, n, on_both, quick};

pub(crate) fn credits(amount: i64, kind: EntryKind) -> NewCredits {
    NewCredits {
        amount: n(amount),
        kind,
        expires_at: None,
        reference: Some("pay_1".into()),
        note: Some("n".into()),
    }
}

async fn new_account(world: &World, overdraft: i64) -> billing::AccountId {
    let account = NewAccount {
        name: "a".into(),
        overdraft: n(overdraft),
        ..NewAccount::default()
    };
    world.store.create_account(account).await.unwrap().id
}

async fn accounts_are_made_listed_and_changed(world: World) {
    let mut metadata = serde_json::Map::new();
    metadata.insert("tier".into(), "gold \"\u{e9}\" \\".into());
    let made = world
        .store
        .create_account(NewAccount {
            name: "Åsa & Söns".into(),
            overdraft: n(5),
            metadata: metadata.clone(),
        })
        .await
        .unwrap();
    assert_eq!(made.metadata, metadata);
    assert_eq!(made.balance.total, Credits::ZERO);
    for _ in 0..4 {
        new_account(&world, 0).await;
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = world.store.accounts(Page::new(2, cursor)).await.unwrap();
        seen.extend(page.data.iter().map(|a| a.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
    let patch = AccountPatch {
        name: Some("b".into()),
        disabled: Some(true),
        overdraft: Some(n(7)),
        metadata: None,
    };
    let changed = world.store.update_account(made.id, patch).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.disabled), ("b", true));
    assert_eq!((changed.overdraft, changed.metadata), (n(7), metadata));
    let nobody = billing::AccountId::from_uuid(uuid::Uuid::nil());
    assert!(matches!(
        world.store.account(nobody).await,
        Err(StoreError::UnknownAccount(_))
    ));
    assert!(matches!(
        world
            .store
            .update_account(nobody, AccountPatch::default())
            .await,
        Err(StoreError::UnknownAccount(_))
    ));
    world.balanced().await;
}

async fn x3_a_payment_is_credited_once(world: World) {
    let account = new_account(&world, 0).await;
    let once = IdempotencyKey::new("evt_1").unwrap();
    let body = credits(100, EntryKind::Purchase);
    let store = &world.store;
    let first = store
        .add_credits(account, body.clone(), Some(&once))
        .await
        .unwrap();
    assert!(!first.replayed);
    let again = store
        .add_credits(account, body.clone(), Some(&once))
        .await
        .unwrap();
    assert!(again.replayed);
    assert_eq!(again.entry, first.entry);
    let other = store
        .add_credits(account, credits(101, EntryKind::Purchase), Some(&once))
        .await;
    assert!(matches!(other, Err(StoreError::IdempotencyConflict)));
    // The same key in another account is another payment.
    let second = new_account(&world, 0).await;
    assert!(
        !store
            .add_credits(second, body, Some(&once))
            .await
            .unwrap()
            .replayed
    );
    assert_eq!(world.total(account).await, 100);
    world.balanced().await;
}

async fn x3_twenty_at_once_are_one(world: World) {
    let account = new_account(&world, 0).await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = world.store.clone();
            tokio::spawn(async move {
                let once = IdempotencyKey::new("evt").unwrap();
                let body = credits(100, EntryKind::Purchase);
                store
                    .add_credits(account, body, Some(&once))
                    .await
                    .unwrap()
                    .replayed
            })
        })
        .collect();
    let mut replays = 0;
    for task in tasks {
        replays += usize::from(task.await.unwrap());
    }
    assert_eq!(replays, 19);
    assert_eq!(world.total(account).await, 100);
    world.balanced().await;
}

async fn p7_negative_amounts(world: World) {
    let account = new_account(&world, 50).await;
    let store = &world.store;
    for kind in [
        EntryKind::Purchase,
        EntryKind::Promo,
        EntryKind::Trial,
        EntryKind::Allowance,
    ] {
        let refused = store.add_credits(account, credits(-1, kind), None).await;
        assert!(matches!(
            refused,
            Err(StoreError::Invalid {
                field: "amount",
                ..
            })
        ));
    }
    for (amount, kind) in [
        (0, EntryKind::Purchase),
        (1, EntryKind::Expiry),
        (-1, EntryKind::LateCharge),
    ] {
        assert!(
            store
                .add_credits(account, credits(amount, kind), None)
                .await
                .is_err()
        );
    }
    store
        .add_credits(account, credits(10, EntryKind::Purchase), None)
        .await
        .unwrap();
    store
        .add_credits(account, credits(-4, EntryKind::Refund), None)
        .await
        .unwrap();
    // Never below zero, not even where an overdraft would allow a charge.
    let refused = store
        .add_credits(account, credits(-7, EntryKind::Adjustment), None)
        .await;
    assert!(matches!(refused, Err(StoreError::BelowZero { available }) if available == n(6)));
    store
        .add_credits(account, credits(-6, EntryKind::Adjustment), None)
        .await
        .unwrap();
    assert_eq!(world.total(account).await, 0);
    let kinds: Vec<_> = store
        .entries(account, Page::default())
        .await
        .unwrap()
        .data
        .into_iter()
        .map(|entry| (entry.kind, entry.amount.nanos()))
        .collect();
    assert_eq!(
        kinds,
        [("adjustment", -6), ("refund", -4), ("purchase", 10)]
    );
    world.balanced().await;
}

async fn l6_the_largest_amounts_do_not_wrap(world: World) {
    let account = new_account(&world, 0).await;
    let store = &world.store;
    store
        .add_credits(account, credits(i64::MAX, EntryKind::Purchase), None)
        .await
        .unwrap();
    let refused = store
        .add_credits(account, credits(1, EntryKind::Purchase), None)
        .await;
    assert!(matches!(
        refused,
        Err(StoreError::Invalid {
            field: "amount",
            ..
        })
    ));
    assert_eq!(world.total(account).await, i64::MAX);
    world.balanced().await;
}

async fn bad_words_are_refused(world: World) {
    let account = new_account(&world, 0).await;
    let store = &world.store;
    for name in ["", " ", "a\nb", &"x".repeat(201)] {
        let bad = NewAccount {
            name: name.into(),
            ..NewAccount::default()
        };
        assert!(matches!(
            store.create_account(bad).await,
            Err(StoreError::Invalid { field: "name", .. })
        ));
    }
    let mut body = credits(1, EntryKind::Purchase);
    body.expires_at = Some(Timestamp::now() - 1.second());
    assert!(matches!(
        store.add_credits(account, body.clone(), None).await,
        Err(StoreError::Invalid {
            field: "expires_at",
            ..
        })
    ));
    body.expires_at = None;
    body.note = Some("x".repeat(501));
    assert!(
        store
            .add_credits(account, body.clone(), None)
            .await
            .is_err()
    );
    body.note = Some("nul \0".into());
    assert!(store.add_credits(account, body, None).await.is_err());
    for key in ["", "a b", "ä", &"k".repeat(256)] {
        assert!(IdempotencyKey::new(key).is_err());
    }
    assert_eq!(world.total(account).await, 0);
}

async fn c7_debt_is_paid_first_and_an_overdraft_in_use_stays(world: World) {
    let key = world.key(0, None).await;
    let account = key.account.id;
    let patch = |overdraft| AccountPatch {
        overdraft: Some(n(overdraft)),
        ..AccountPatch::default()
    };
    world
        .store
        .update_account(account, patch(30))
        .await
        .unwrap();
    let ledger = world.ledger(quick()).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 20, 20).await.unwrap();
    assert!(ledger.shutdown(std::time::Duration::from_secs(10)).await);
    assert_eq!(world.total(account).await, -20);
    assert!(matches!(
        world.store.update_account(account, patch(19)).await,
        Err(StoreError::OverdraftInUse { available }) if available == n(-20)
    ));
    world
        .store
        .update_account(account, patch(20))
        .await
        .unwrap();
    world
        .store
        .add_credits(account, credits(50, EntryKind::Purchase), None)
        .await
        .unwrap();
    assert_eq!(world.total(account).await, 30);
    assert_eq!(
        world
            .number("SELECT CAST(SUM(remaining) AS bigint) FROM grants")
            .await,
        30
    );
    world.balanced().await;
}

async fn p9_lists_and_sums_come_from_the_ledger(world: World) {
    let key = world.key(1000, None).await;
    let other = world.key(1000, None).await;
    let ledger = world.ledger(quick()).await;
    for (key, times) in [(&key, 3), (&other, 2)] {
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        for _ in 0..times {
            world.spend(&ledger, &record, 20, 10).await.unwrap();
        }
    }
    flushed(&ledger).await;
    let store = &world.store;
    let account = key.account.id;
    let first = store.entries(account, Page::new(3, None)).await.unwrap();
    let second = store
        .entries(account, Page::new(3, first.next))
        .await
        .unwrap();
    let kinds: Vec<_> = first
        .data
        .iter()
        .chain(&second.data)
        .map(|e| e.kind)
        .collect();
    assert_eq!(kinds, ["charge", "charge", "charge", "purchase"]);
    assert_eq!(first.data[0].amount, n(-10));
    assert!(
        first.data[0]
            .reference
            .as_deref()
            .unwrap()
            .starts_with("req_")
    );
    assert_eq!(first.data[0].id, first.data[0].reference.clone().unwrap());
    assert_eq!(second.next, None);

    let of_account = ChargeFilter {
        account_id: Some(account),
        ..ChargeFilter::default()
    };
    let charges = store
        .charges(&of_account, Page::default())
        .await
        .unwrap()
        .data;
    assert_eq!(charges.len(), 3);
    let one = store.charge(account, charges[0].id).await.unwrap().unwrap();
    assert_eq!(one, charges[0]);
    assert_eq!(
        (one.cost, one.usage.completion, one.stream),
        (n(10), 10, true)
    );
    assert_eq!(one.raw_usage.as_deref(), Some("{\"total_tokens\":1}"));
    // Nobody reads another account's request.
    assert_eq!(store.charge(other.account.id, one.id).await.unwrap(), None);

    let now = Timestamp::now();
    for (from, to, expected) in [
        (Some(now - 1.hour()), None, 3),
        (None, Some(now - 1.hour()), 0),
        (Some(one.created_at), None, 1),
    ] {
        let filter = ChargeFilter {
            from,
            to,
            ..of_account.clone()
        };
        let found = store
            .charges(&filter, Page::default())
            .await
            .unwrap()
            .data
            .len();
        assert!(
            found >= expected && (expected != 0 || found == 0),
            "{from:?} {to:?}: {found}"
        );
    }
    let by = [GroupBy::Key, GroupBy::Day].into();
    let sums = store.usage(&ChargeFilter::default(), &by).await.unwrap();
    let mut rows: Vec<_> = sums
        .iter()
        .map(|s| (s.requests, s.charged.nanos(), s.usage.completion))
        .collect();
    rows.sort_unstable();
    assert_eq!(rows, [(2, 20, 20), (3, 30, 30)]);
    assert!(
        sums.iter()
            .all(|s| s.day.as_deref().is_some_and(|d| d.len() == 10))
    );
    assert!(sums.iter().all(|s| s.key_id.is_some() && s.model.is_none()));
    let all = store
        .usage(&ChargeFilter::default(), &[].into())
        .await
        .unwrap();
    assert_eq!((all.len(), all[0].requests, all[0].cost), (1, 5, n(50)));
    let everything = GroupBy::ALL.into_iter().collect();
    assert_eq!(
        store
            .usage(&ChargeFilter::default(), &everything)
            .await
            .unwrap()
            .len(),
        2
    );
    world.balanced().await;
}

async fn entries_and_charges_cannot_be_changed(world: World) {
    let key = world.key(100, None).await;
    let ledger = world.ledger(quick()).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 5, 5).await.unwrap();
    flushed(&ledger).await;
    for text in [
        "UPDATE entries SET amount = amount + 1",
        "DELETE FROM entries",
        "UPDATE charges SET charged = 0, house_loss = cost",
        "DELETE FROM charges",
        "UPDATE prices SET price = '{}'",
    ] {
        let world = &world;
        let refused = refused(world, text).await;
        assert!(refused.contains("immutable"), "{text}: {refused}");
    }
    world.balanced().await;
}

/// The error that a statement of somebody else's gets.
pub(crate) async fn refused(world: &World, text: &str) -> String {
    use sqlx::Connection;
    let text = sqlx::AssertSqlSafe(text);
    let result = if world.is_postgres() {
        let mut connection = sqlx::PgConnection::connect(&world.url).await.unwrap();
        sqlx::raw_sql(text)
            .execute(&mut connection)
            .await
            .map(|_| ())
    } else {
        let mut connection = sqlx::SqliteConnection::connect(&world.url).await.unwrap();
        sqlx::raw_sql(text)
            .execute(&mut connection)
            .await
            .map(|_| ())
    };
    result.unwrap_err().to_string()
}

on_both!(
    accounts_are_made_listed_and_changed,
    x3_a_payment_is_credited_once,
    x3_twenty_at_once_are_one,
    p7_negative_amounts,
    l6_the_largest_amounts_do_not_wrap,
    bad_words_are_refused,
    c7_debt_is_paid_first_and_an_overdraft_in_use_stays,
    p9_lists_and_sums_come_from_the_ledger,
    entries_and_charges_cannot_be_changed,
);
