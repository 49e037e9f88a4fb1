//! A thousand streams that nobody reads, on one key: what they lock is bounded, and free when they are gone.

use std::time::Duration;

use auditor::{Database, Outcome};
use serde_json::json;
use tests::{Books, PROMPT, Place, Storm, StormPlan, Wish, eventually, in_time};

use super::number;

/// Of each: a prompt of at most so many bytes, and a slice of output.
const HELD_TOKENS_MAX: i128 = 200 + 512;
const NANOS_PER_TOKEN: i128 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_streams_lock_a_bounded_amount_and_free_it() {
    let count = number("TOLLWAY_IDLE_STREAMS", 1_000);
    let plan = StormPlan {
        replicas: 2,
        hot: 0,
        cold: 0,
        ..StormPlan::default()
    };
    let storm = Storm::gather(Place::new(Books::Postgres).await, plan).await;
    let account = storm.open_account("5", None).await;
    let hoarded = storm.fleet.target(0).unwrap();
    let body = json!({
        "model": "gated", "stream": true,
        "messages": [{"role": "user", "content": PROMPT}],
    });
    let open = || {
        storm
            .fleet
            .client
            .post(format!("http://{}/v1/chat/completions", hoarded.addr))
            .bearer_auth(account.secret())
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
    };
    let streams = futures_util::future::join_all((0..count).map(|_| open()));
    let streams = in_time("all are open", streams).await;
    for stream in &streams {
        assert_eq!(stream.as_ref().unwrap().status(), 200);
    }
    // Heartbeats write down what is held, every two seconds.
    let mut database = Database::open(storm.database_url()).await.unwrap();
    let (mut locked, mut leased) = (0, 0);
    for _ in 0..200 {
        let books = database.books().await.unwrap();
        (leased, locked) = books.leased_and_held(&account.id);
        if locked > 0 {
            break;
        }
        // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let most = i128::from(count) * HELD_TOKENS_MAX * NANOS_PER_TOKEN;
    println!("{count} idle streams hold {locked} of {leased} leased, {most} at most");
    assert!((1..=most).contains(&locked), "{locked}");
    // The rest is everybody's.
    let other = storm.fleet.target(1).unwrap();
    let wish = Wish::plain("exact", Some(4));
    let taken = storm.ask(&other, &account, &wish).await;
    assert_eq!(taken.answer.outcome, Outcome::Finished, "{taken:?}");
    // Nobody read a word, and everybody hangs up.
    drop(streams);
    eventually("all is free again", async || {
        let mut database = Database::open(storm.database_url()).await.unwrap();
        let books = database.books().await.unwrap();
        (books.leased_and_held(&account.id) == (0, 0)).then_some(())
    })
    .await;
    drop(database);
    storm.fleet.terminate_all().await;
}
