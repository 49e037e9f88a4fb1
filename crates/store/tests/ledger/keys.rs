//! Keys: shown once, kept as digests, refused in time on every replica.

use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use store::{
    AccountPatch, AuthError, KeyFilter, KeyPatch, LedgerOptions, NewKey, OpenOptions, Page, Store,
    StoreError, StoreUrl,
};

use crate::world::{World, eventually, n, on_both, open, quick};

async fn a_key_is_made_with_its_account(world: World) {
    let key = world.key(100, Some(50)).await;
    assert_eq!(key.account.balance.total, n(100));
    assert_eq!(key.key.limit, Some(n(50)));
    assert_eq!(key.key.remaining, Some(n(50)));
    assert!(key.secret.expose().starts_with(&key.key.prefix));
    assert_eq!(key.key.prefix.len(), 12);
    let second = NewKey {
        name: "second".into(),
        account_id: Some(key.account.id),
        credits: Some(n(5)),
        models: Some(vec!["m".into()]),
        ..NewKey::default()
    };
    let second = world.store.create_key(second).await.unwrap();
    assert_eq!(second.account.balance.total, n(105));
    let of_account = KeyFilter {
        account_id: Some(key.account.id),
        with_revoked: false,
    };
    let listed = world.store.keys(of_account, Page::default()).await.unwrap();
    assert_eq!(listed.data, [second.key, key.key]);
    let bad = NewKey {
        name: "x".into(),
        account_id: Some(billing::AccountId::from_uuid(uuid::Uuid::nil())),
        ..NewKey::default()
    };
    assert!(matches!(
        world.store.create_key(bad).await,
        Err(StoreError::UnknownAccount(_))
    ));
    world.balanced().await;
}

async fn a_failed_creation_leaves_nothing(world: World) {
    let bad = NewKey {
        name: "x".into(),
        credits: Some(n(-1)),
        ..NewKey::default()
    };
    assert!(world.store.create_key(bad).await.is_err());
    assert_eq!(world.number("SELECT COUNT(*) FROM accounts").await, 0);
}

async fn the_database_has_no_secret(world: World) {
    let key = world.key(1, None).await;
    let secret = key.secret.expose().as_bytes().to_vec();
    let found = world
        .number("SELECT COUNT(*) FROM keys WHERE length(digest) = 32 AND length(prefix) = 12")
        .await;
    assert_eq!(found, 1);
    if let Some(path) = world.url.strip_prefix("sqlite://") {
        for file in [path.to_owned(), format!("{path}-wal")] {
            let bytes = std::fs::read(file).unwrap_or_default();
            assert!(!bytes.windows(secret.len()).any(|w| w == secret));
        }
    }
}

async fn who_gets_in(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1, None).await;
    let secret = key.secret.expose();
    let record = ledger.authenticate(secret).await.unwrap();
    assert_eq!(record.key_id, key.key.id);
    assert_eq!(record.account_id, key.account.id);
    assert!(record.allows("anything") && !record.has_limit());
    assert_eq!(
        ledger.authenticate("sk-tw-x").await.unwrap_err(),
        AuthError::Malformed
    );
    // Well-formed but nobody's: of another installation.
    let elsewhere = World::sqlite().await;
    let stranger = elsewhere.key(1, None).await;
    for _ in 0..2 {
        let refused = ledger.authenticate(stranger.secret.expose()).await;
        assert_eq!(refused.unwrap_err(), AuthError::Unknown);
    }
    let expired = KeyPatch {
        expires_at: Some(Some(Timestamp::now() - 1.second())),
        models: Some(Some(vec!["m".into()])),
        ..KeyPatch::default()
    };
    world.store.update_key(key.key.id, expired).await.unwrap();
    eventually("expired", || async {
        ledger.authenticate(secret).await.err() == Some(AuthError::Expired)
    })
    .await;
    let renewed = KeyPatch {
        expires_at: Some(None),
        ..KeyPatch::default()
    };
    world.store.update_key(key.key.id, renewed).await.unwrap();
    eventually("renewed", || async {
        ledger.authenticate(secret).await.is_ok()
    })
    .await;
    assert!(!ledger.authenticate(secret).await.unwrap().allows("other"));
    let disabled = AccountPatch {
        disabled: Some(true),
        ..AccountPatch::default()
    };
    world
        .store
        .update_account(key.account.id, disabled)
        .await
        .unwrap();
    eventually("disabled", || async {
        ledger.authenticate(secret).await.err() == Some(AuthError::AccountDisabled)
    })
    .await;
}

async fn a_revocation_holds_on_every_replica_within_a_second(world: World) {
    let options = LedgerOptions::default();
    let ledgers = [
        world.other_ledger(options.clone()).await,
        world.other_ledger(options).await,
    ];
    let key = world.key(1, None).await;
    for ledger in &ledgers {
        ledger.authenticate(key.secret.expose()).await.unwrap();
    }
    world.store.revoke_key(key.key.id).await.unwrap();
    let revoked = Instant::now();
    for ledger in &ledgers {
        eventually("revoked", || async {
            ledger.authenticate(key.secret.expose()).await.err() == Some(AuthError::Revoked)
        })
        .await;
    }
    assert!(
        revoked.elapsed() < Duration::from_secs(1),
        "{:?}",
        revoked.elapsed()
    );
    let first = world.store.key(key.key.id).await.unwrap().revoked_at;
    let again = world.store.revoke_key(key.key.id).await.unwrap();
    assert_eq!(again.revoked_at, first, "revoking twice is fine");
    assert!(world.store.rotate_key(key.key.id).await.is_err());
    let all = KeyFilter::default();
    assert!(
        world
            .store
            .keys(all, Page::default())
            .await
            .unwrap()
            .data
            .is_empty()
    );
}

async fn a_rotated_key_has_one_secret(world: World) {
    let ledger = world.ledger(LedgerOptions::default()).await;
    let key = world.key(1, None).await;
    ledger.authenticate(key.secret.expose()).await.unwrap();
    let (rotated, secret) = world.store.rotate_key(key.key.id).await.unwrap();
    assert_eq!(rotated.id, key.key.id);
    assert!(secret.expose().starts_with(&rotated.prefix));
    ledger.authenticate(secret.expose()).await.unwrap();
    eventually("the old secret is refused", || async {
        ledger.authenticate(key.secret.expose()).await.err() == Some(AuthError::Unknown)
    })
    .await;
}

async fn replicas_that_start_together_agree(world: World) {
    if !world.is_postgres() {
        return;
    }
    let fresh = tokio::task::spawn_blocking(throwaway_postgres::shared)
        .await
        .unwrap()
        .unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let url = fresh.url().to_owned();
            tokio::spawn(async move {
                let store = open(&url).await;
                let (admin, secret) = store.ensure_admin_key(None).await.unwrap();
                let demo = NewKey {
                    name: "demo".into(),
                    credits: Some(n(9)),
                    ..NewKey::default()
                };
                let demo = store.create_demo_key(demo).await.unwrap();
                (store, admin, secret, demo)
            })
        })
        .collect();
    let mut started = Vec::new();
    for task in tasks {
        started.push(task.await.unwrap());
    }
    let admin: Vec<_> = started.iter().filter_map(|s| s.2.as_ref()).collect();
    let demo: Vec<_> = started.iter().filter_map(|s| s.3.as_ref()).collect();
    assert_eq!((admin.len(), demo.len()), (1, 1), "made once");
    for (store, key, _, _) in &started {
        assert!(key.matches(admin[0].expose()), "one pepper, one admin key");
        let ledger = store::Ledger::start(store.clone(), quick()).await.unwrap();
        ledger.authenticate(demo[0].secret.expose()).await.unwrap();
    }
}

async fn the_admin_key_is_made_once(world: World) {
    let (admin, secret) = world.store.ensure_admin_key(None).await.unwrap();
    let secret = secret.unwrap();
    assert!(admin.matches(secret.expose()));
    assert!(!admin.matches("") && !admin.matches(&secret.expose()[1..]));
    let (again, none) = world.store.ensure_admin_key(None).await.unwrap();
    assert!(none.is_none() && again.matches(secret.expose()));
    let given = "a-given-admin-key-0123";
    let (given_key, none) = world.store.ensure_admin_key(Some(given)).await.unwrap();
    assert!(none.is_none() && given_key.matches(given) && !given_key.matches(secret.expose()));
    assert!(world.store.ensure_admin_key(Some("short")).await.is_err());
}

async fn a_key_limit_can_be_changed_at_any_time(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1000, None).await;
    let secret = key.secret.expose();
    let record = ledger.authenticate(secret).await.unwrap();
    world.spend(&ledger, &record, 30, 30).await.unwrap();
    let limit = |limit| KeyPatch {
        limit: Some(limit),
        ..KeyPatch::default()
    };
    crate::world::flushed(&ledger).await;
    let limited = world
        .store
        .update_key(key.key.id, limit(Some(n(40))))
        .await
        .unwrap();
    assert_eq!((limited.used, limited.remaining), (n(30), Some(n(10))));
    eventually("the limit is known", || async {
        ledger.authenticate(secret).await.unwrap().has_limit()
    })
    .await;
    let record = ledger.authenticate(secret).await.unwrap();
    let short = world.spend(&ledger, &record, 11, 11).await.unwrap_err();
    assert_eq!(
        short.budget,
        billing::BudgetId::Key(key.key.account_id, key.key.id)
    );
    assert_eq!((short.available, short.unavailable), (n(10), false));
    world.spend(&ledger, &record, 10, 10).await.unwrap();
    crate::world::flushed(&ledger).await;
    let lowered = world
        .store
        .update_key(key.key.id, limit(Some(n(5))))
        .await
        .unwrap();
    assert_eq!((lowered.used, lowered.remaining), (n(40), Some(n(0))));
    assert!(world.spend(&ledger, &record, 1, 1).await.is_err());
    world.balanced().await;
    world
        .store
        .update_key(key.key.id, limit(None))
        .await
        .unwrap();
    eventually("the limit is gone", || async {
        !ledger.authenticate(secret).await.unwrap().has_limit()
    })
    .await;
    let record = ledger.authenticate(secret).await.unwrap();
    world.spend(&ledger, &record, 1, 1).await.unwrap();
    crate::world::flushed(&ledger).await;
    assert_eq!(world.store.key(key.key.id).await.unwrap().used, n(41));
    world.balanced().await;
}

on_both!(
    a_key_is_made_with_its_account,
    a_failed_creation_leaves_nothing,
    the_database_has_no_secret,
    who_gets_in,
    a_revocation_holds_on_every_replica_within_a_second,
    a_rotated_key_has_one_secret,
    replicas_that_start_together_agree,
    the_admin_key_is_made_once,
    a_key_limit_can_be_changed_at_any_time,
);

#[tokio::test]
async fn a_sqlite_file_has_one_owner() {
    let world = World::sqlite().await;
    let url = StoreUrl::parse(&world.url).unwrap();
    let second = Store::open(&url, OpenOptions::default()).await;
    assert!(matches!(second, Err(StoreError::InUse { .. })));
    // The audit of another process reads beside it.
    let reader = Store::open_read_only(&url, OpenOptions::default())
        .await
        .unwrap();
    assert!(reader.audit().await.unwrap().balanced);
    assert!(
        reader
            .create_account(store::NewAccount {
                name: "x".into(),
                ..Default::default()
            })
            .await
            .is_err()
    );
    let nothing = StoreUrl::parse("sqlite:///nonexistent/x.db").unwrap();
    assert!(matches!(
        Store::open_read_only(&nothing, OpenOptions::default()).await,
        Err(StoreError::Empty)
    ));
}

#[test]
fn urls() {
    for good in [
        "sqlite://a.db",
        "sqlite:///a/b.db",
        "sqlite:a.db",
        "postgres://u:p@h/d",
    ] {
        StoreUrl::parse(good).unwrap();
    }
    for bad in [
        "",
        "a.db",
        "sqlite://",
        "sqlite::memory:",
        "mysql://h/d",
        "postgres//x",
    ] {
        assert!(StoreUrl::parse(bad).is_err(), "{bad}");
    }
    let secret = StoreUrl::parse("postgres://u:hunter2@h:5/d").unwrap();
    assert_eq!(
        format!("{secret} {secret:?}"),
        "postgres://h:5/d StoreUrl(postgres://h:5/d)"
    );
}
