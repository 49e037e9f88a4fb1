//! What customers have made at providers: an object has one owner, whoever else names it.

use billing::{AccountId, KeyId, RequestId};
use store::{ABOUT_BYTES_MAX, NewObject, ObjectKind, ObjectPage, OwnedObject, Owner};
use uuid::Uuid;

use crate::world::{World, on_both, open};

fn owner(n: u128) -> Owner {
    Owner {
        account: AccountId::from_uuid(Uuid::from_u128(1)),
        key: KeyId::from_uuid(Uuid::from_u128(n)),
    }
}

fn file(owner: Owner, id: &str) -> NewObject<'_> {
    NewObject {
        owner,
        provider: "p",
        id,
        kind: ObjectKind::File,
        about: Some("{}"),
        made_by: None,
        batch: None,
    }
}

fn ids(objects: &[OwnedObject]) -> Vec<&str> {
    objects.iter().map(|object| &*object.id).collect()
}

async fn an_object_stays_with_its_first_owner(world: World) {
    let store = &world.store;
    let (one, other) = (owner(1), owner(2));
    assert!(store.own(&file(one, "file-a")).await.unwrap());
    assert!(store.own(&file(one, "file-a")).await.unwrap(), "again");
    assert!(!store.own(&file(other, "file-a")).await.unwrap());
    // Another provider may give the same name.
    let elsewhere = NewObject {
        provider: "q",
        ..file(other, "file-a")
    };
    assert!(store.own(&elsewhere).await.unwrap());
    let known = store.objects(&["file-a", "file-b"]).await.unwrap();
    let owners: Vec<_> = known.iter().map(|o| (&*o.provider, o.owner)).collect();
    assert_eq!(owners, [("p", one), ("q", other)]);
    store.disown(&known[0]).await.unwrap();
    assert!(store.own(&file(other, "file-a")).await.unwrap());
    assert!(store.objects(&[]).await.unwrap().is_empty());
}

async fn a_key_lists_its_own(world: World) {
    let store = &world.store;
    let (one, other) = (owner(1), owner(2));
    for id in ["a", "b", "c"] {
        assert!(store.own(&file(one, id)).await.unwrap());
    }
    assert!(store.own(&file(other, "d")).await.unwrap());
    let batch = NewObject {
        kind: ObjectKind::Batch,
        ..file(one, "e")
    };
    assert!(store.own(&batch).await.unwrap());
    let page = ObjectPage {
        limit: 2,
        after: None,
        oldest_first: false,
    };
    let (newest, more) = store.objects_of(one, ObjectKind::File, page).await.unwrap();
    assert_eq!((ids(&newest), more), (vec!["c", "b"], true));
    let next = ObjectPage {
        after: newest.last(),
        ..page
    };
    let (rest, more) = store.objects_of(one, ObjectKind::File, next).await.unwrap();
    assert_eq!((ids(&rest), more), (vec!["a"], false));
    let oldest = ObjectPage {
        oldest_first: true,
        ..page
    };
    let (oldest, more) = store
        .objects_of(one, ObjectKind::File, oldest)
        .await
        .unwrap();
    assert_eq!((ids(&oldest), more), (vec!["a", "b"], true));
}

async fn what_is_said_of_an_object_is_kept(world: World) {
    let store = &world.store;
    let results = NewObject {
        made_by: Some("batch_1"),
        ..file(owner(1), "file-r")
    };
    assert!(store.own(&results).await.unwrap());
    let get = async || store.objects(&["file-r"]).await.unwrap().remove(0);
    let object = get().await;
    assert_eq!(
        (object.made_by.as_deref(), object.paid),
        (Some("batch_1"), false)
    );
    store.describe(&object, r#"{"a":1}"#).await.unwrap();
    let long = format!("\"{}\"", "x".repeat(ABOUT_BYTES_MAX));
    store.describe(&object, &long).await.unwrap();
    store.results_paid(&object).await.unwrap();
    let object = get().await;
    assert_eq!(
        (object.about.as_deref(), object.paid),
        (Some(r#"{"a":1}"#), true)
    );
}

async fn results_of_a_batch_are_paid_for_one_by_one(world: World) {
    let store = &world.store;
    let batch = NewObject {
        kind: ObjectKind::Batch,
        ..file(owner(1), "batch-a")
    };
    assert!(store.own(&batch).await.unwrap());
    for id in ["file-r", "file-e"] {
        let results = NewObject {
            made_by: Some("batch-a"),
            ..file(owner(1), id)
        };
        assert!(store.own(&results).await.unwrap());
    }
    let batch = store.objects(&["batch-a"]).await.unwrap().remove(0);
    let results = store.objects(&["file-e", "file-r"]).await.unwrap();
    for one in &results {
        assert!(store.has_unpaid_results(&batch).await.unwrap());
        store.results_paid(one).await.unwrap();
    }
    assert!(!store.has_unpaid_results(&batch).await.unwrap());
    let first = store.results_paying(&results[0]).await.unwrap();
    assert_eq!(store.results_paying(&results[0]).await.unwrap(), first);
    let nobody = RequestId::from_uuid(Uuid::from_u128(3));
    let booked = store.booked(owner(1).account, &[nobody]).await;
    assert!(booked.unwrap().is_empty());
}

async fn one_of_many_becomes_the_owner(world: World) {
    let tasks = (0..8).map(|n| {
        let url = world.url.clone();
        let postgres = world.is_postgres();
        let store = world.store.clone();
        tokio::spawn(async move {
            let store = if postgres { open(&url).await } else { store };
            store.own(&file(owner(n), "file-x")).await.unwrap()
        })
    });
    let mut owned = 0;
    for task in tasks.collect::<Vec<_>>() {
        owned += usize::from(task.await.unwrap());
    }
    assert_eq!(owned, 1);
}

on_both!(
    an_object_stays_with_its_first_owner,
    a_key_lists_its_own,
    what_is_said_of_an_object_is_kept,
    results_of_a_batch_are_paid_for_one_by_one,
    one_of_many_becomes_the_owner
);
