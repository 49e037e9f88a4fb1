//! Credits that expire, as the operator and the books see them: soonest first, also while leased and in the middle of a stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use auditor::Outcome;
use billing::Credits;
use mock_provider::Script;
use serde_json::Value;
use tests::{
    Account, Books, Place, Storm, StormPlan, Wish, credits, eventually, grants_hold, tokens_cost,
};

/// What the operator sees of an account's ledger: kinds and amounts, oldest first.
async fn entries(storm: &Storm, account: &Account) -> Vec<(String, String)> {
    let target = storm.fleet.targets().next().unwrap();
    let path = format!("/admin/v1/accounts/acct_{}/entries?limit=1000", account.id);
    let url = format!("http://{}{path}", target.addr);
    let request = storm.fleet.client.get(url).bearer_auth(tests::ADMIN_KEY);
    let bytes = request.send().await.unwrap().bytes().await.unwrap();
    let list: Value = serde_json::from_slice(&bytes).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = list["data"].as_array().unwrap().iter().rev();
    rows.map(|row| (text(row, "kind"), text(row, "amount")))
        .collect()
}

/// Waits until so much of an account's credits has expired, in one piece or more.
async fn expired(storm: &Storm, account: &Account, tokens: u64) {
    let wanted = tokens_cost(tokens).checked_neg().unwrap();
    eventually(&format!("{tokens} tokens expire"), async || {
        let entries = entries(storm, account).await;
        let amounts = entries.iter().filter(|(kind, _)| kind == "expiry");
        let ended = amounts.fold(Credits::ZERO, |sum, (_, amount)| {
            sum.checked_add(credits(amount)).unwrap()
        });
        (ended == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_that_expire_soonest_are_used_first_and_expire_also_while_leased() {
    let plan = StormPlan {
        replicas: 2,
        hot: 0,
        cold: 0,
        ..StormPlan::default()
    };
    let place = Place::new(Books::Postgres).await;
    let storm = Storm::gather(place.clone(), plan).await;
    let looks = Arc::new(AtomicU32::new(0));
    let often = Duration::from_millis(50);
    let looking = tokio::spawn(grants_hold(
        place.url().to_owned(),
        often,
        Arc::clone(&looks),
    ));
    let tokens = |count: u64| tokens_cost(count).to_string();
    let replicas: Vec<_> = storm.fleet.targets().collect();
    let exact = Wish::plain("exact", Some(4));

    // Used first, though booked last: 40 tokens that expire in seconds, then 100 that do not.
    let first = storm.open_account(&tokens(100), None).await;
    let soon = Duration::from_secs(5);
    storm.credit(&first, &tokens(40), "promo", Some(soon)).await;
    for replica in &replicas {
        let taken = storm.ask(replica, &first, &exact).await;
        assert_eq!(taken.answer.outcome, Outcome::Finished, "{taken:?}");
    }
    // Two requests took 26 of the 40.
    expired(&storm, &first, 14).await;
    assert_eq!(storm.settled(&first).await["balance"]["total"], tokens(100));

    // Leased to a stream when it expires: the stream may finish with what it holds, the rest ends.
    let leased = storm.open_account("0", None).await;
    storm
        .credit(&leased, &tokens(60), "promo", Some(Duration::from_secs(2)))
        .await;
    let gated = Wish::stream("gated", Some(8));
    let held = storm.ask(&replicas[0], &leased, &gated);
    let expiry = async {
        storm
            .provider
            .wait_for(|stats| stats.at_gates == 1)
            .await
            .unwrap();
        // 17 are held, for 9 of prompt and 8 of output.
        expired(&storm, &leased, 60 - 17).await;
        let refused = storm.ask(&replicas[1], &leased, &exact).await;
        assert_eq!(refused.answer.status, 402, "{refused:?}");
        storm.provider.open("go");
    };
    let (held, ()) = tokio::join!(held, expiry);
    assert_eq!(held.answer.outcome, Outcome::Finished, "{held:?}");
    // It cost 13; the 4 that came back are too late.
    expired(&storm, &leased, 60 - 13).await;
    assert_eq!(storm.settled(&leased).await["balance"]["total"], "0");

    // In the middle of a stream: it gets no more than it held when they expired.
    let stream = storm.open_account("0", None).await;
    storm
        .credit(&stream, "9", "promo", Some(Duration::from_secs(2)))
        .await;
    let pace = Duration::from_millis(3);
    let quick = Script::new().role().endless(pace);
    storm.provider.script("endless", quick);
    let taken = storm
        .ask(&replicas[0], &stream, &Wish::stream("endless", None))
        .await;
    assert_eq!(taken.answer.outcome, Outcome::Exhausted, "{taken:?}");
    assert_eq!(storm.settled(&stream).await["balance"]["total"], "0");

    assert!(!looking.is_finished(), "{:?}", looking.await);
    looking.abort();
    assert!(looks.load(Ordering::Relaxed) > 20, "{looks:?}");
    let _ = storm.calm().await.expect_balanced();
}
