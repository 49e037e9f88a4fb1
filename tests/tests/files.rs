//! Files and batches: whose they are, what travels, and that results are paid for once before anybody gets them.

use billing::Credits;
use http::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use tests::{Books, Customer, Gateway, Plain, chat, credits, eventually, form};

const FILES: &str = "/v1/files";
const BATCHES: &str = "/v1/batches";

async fn upload(gateway: &Gateway, customer: &Customer, bytes: &[u8]) -> Plain {
    let request = gateway.call(Method::POST, FILES, &customer.secret);
    let request = form(&[("purpose", "batch")], &[("file", bytes)]).onto(request);
    Plain::read(request.send().await.unwrap()).await
}

/// The id of a file that was sent.
async fn file(gateway: &Gateway, customer: &Customer, bytes: &[u8]) -> String {
    let made = upload(gateway, customer, bytes).await.expect(200).json();
    made["id"].as_str().unwrap().to_owned()
}

async fn call(gateway: &Gateway, customer: &Customer, method: Method, path: &str) -> Plain {
    let request = gateway.call(method, path, &customer.secret);
    Plain::read(request.send().await.unwrap()).await
}

async fn begin(gateway: &Gateway, customer: &Customer, file: &str) -> Plain {
    let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions",
        "completion_window": "24h"});
    let request = gateway.call(Method::POST, BATCHES, &customer.secret);
    Plain::read(request.body(body.to_string()).send().await.unwrap()).await
}

fn line(id: &str, more: &Value) -> String {
    let mut body = chat("batched", json!({"max_tokens": 10}));
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    let request =
        json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body});
    format!("{request}\n")
}

/// A batch of these lines that was worked off: its results' path.
async fn worked_off(gateway: &Gateway, customer: &Customer, lines: &str) -> (String, Value) {
    let input = file(gateway, customer, lines.as_bytes()).await;
    let batch = begin(gateway, customer, &input).await.expect(200).json();
    let path = format!("{BATCHES}/{}", batch["id"].as_str().unwrap());
    let batch = call(gateway, customer, Method::GET, &path)
        .await
        .expect(200)
        .json();
    assert_eq!(batch["status"], "completed");
    let output = batch["output_file_id"].as_str().unwrap();
    (format!("{FILES}/{output}/content"), batch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_the_keys_that_sent_it() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("1").await;
        let other = gateway.customer("1").await;
        let call_for = json!({"name": "sibling", "account_id": customer.account_id});
        let sibling = gateway.customer_with(call_for).await;
        let bytes = b"\x00\xff any \r\n bytes";
        let first = file(&gateway, &customer, bytes).await;
        let second = file(&gateway, &customer, b"two").await;
        let path = format!("{FILES}/{first}");
        let content = format!("{path}/content");
        let got = call(&gateway, &customer, Method::GET, &content)
            .await
            .expect(200);
        assert_eq!(&got.body[..], bytes);
        let got = call(&gateway, &customer, Method::GET, &path)
            .await
            .expect(200);
        assert_eq!(got.json()["bytes"], bytes.len());
        let asked = gateway.provider.stats().requests;
        for stranger in [&other, &sibling] {
            for (method, path) in [
                (Method::GET, &path),
                (Method::GET, &content),
                (Method::DELETE, &path),
            ] {
                let _ = call(&gateway, stranger, method, path).await.expect(404);
            }
            let list = call(&gateway, stranger, Method::GET, FILES)
                .await
                .expect(200)
                .json();
            assert_eq!(list["data"], json!([]));
            // A chat that names it would read it.
            let parts = json!([{"type": "file", "file": {"file_id": first}}]);
            let body = json!({"model": "m", "messages": [{"role": "user", "content": parts}]});
            let _ = gateway.chat(stranger, &body).await.expect(404);
            let hidden = body.to_string().replace("file_id", "file\\u005fid");
            let _ = gateway.chat(stranger, &hidden).await.expect(404);
            let _ = begin(&gateway, stranger, &first).await.expect(404);
        }
        assert_eq!(
            gateway.provider.stats().requests,
            asked,
            "nothing was asked"
        );
        lists(&gateway, &customer, &first, &second).await;
        let gone = call(&gateway, &customer, Method::DELETE, &path)
            .await
            .expect(200);
        assert_eq!(gone.json()["deleted"], true);
        let _ = call(&gateway, &customer, Method::GET, &path)
            .await
            .expect(404);
        gateway.finish().await;
    }
}

/// The key's own files, page by page.
async fn lists(gateway: &Gateway, customer: &Customer, first: &str, second: &str) {
    let list = call(gateway, customer, Method::GET, "/v1/files?limit=1").await;
    let list = list.expect(200).json();
    assert_eq!(
        (&list["data"][0]["id"], &list["has_more"]),
        (&json!(second), &json!(true))
    );
    let next = format!("/v1/files?limit=1&after={second}");
    let list = call(gateway, customer, Method::GET, &next)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&list["data"][0]["id"], &list["has_more"]),
        (&json!(first), &json!(false))
    );
    let none = call(gateway, customer, Method::GET, "/v1/files?purpose=vision").await;
    assert_eq!(none.expect(200).json()["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_a_form_within_its_bound() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.file_bytes_max = 64 * 1024;
        // Files have a bound of their own.
        settings.body_bytes_max = 1024;
    })
    .await;
    let customer = gateway.customer("1").await;
    let _ = file(&gateway, &customer, &vec![b'x'; 60 * 1024]).await;
    let large = vec![b'x'; 80 * 1024];
    let _ = upload(&gateway, &customer, &large).await.expect(413);
    // One that does not say how long it is is cut off on its way.
    let pieces = large
        .chunks(10_000)
        .map(<[u8]>::to_vec)
        .map(Ok::<_, std::io::Error>);
    let stream = futures_util::stream::iter(pieces.collect::<Vec<_>>());
    let request = gateway.call(Method::POST, FILES, &customer.secret);
    let request = request.header("content-type", "multipart/form-data; boundary=x");
    let request = request.body(reqwest::Body::wrap_stream(stream));
    let _ = Plain::read(request.send().await.unwrap()).await.expect(413);
    let request = gateway.call(Method::POST, FILES, &customer.secret);
    let request = request.body("{}");
    let _ = Plain::read(request.send().await.unwrap()).await.expect(400);
    let list = call(&gateway, &customer, Method::GET, FILES)
        .await
        .expect(200)
        .json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_charged_once_at_the_price_of_batches() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("1").await;
        let other = gateway.customer("1").await;
        let lines = [
            line("a", &json!({})),
            line("b", &json!({})),
            line("fails", &json!({"user": "fail"})),
            // A name that is there twice is one request.
            line("a", &json!({})),
        ];
        let (path, batch) = worked_off(&gateway, &customer, &lines.concat()).await;
        // Nothing is charged yet, and what it may cost is set aside.
        let balance = gateway.balance(&customer).await;
        assert_eq!(balance.total, credits("1"));
        assert!(balance.held > Credits::ZERO, "{balance:?}");
        let _ = call(&gateway, &other, Method::GET, &path).await.expect(404);
        let results = call(&gateway, &customer, Method::GET, &path)
            .await
            .expect(200);
        let text = String::from_utf8(results.body.to_vec()).unwrap();
        let usage: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let tokens = usage["response"]["body"]["usage"]["total_tokens"]
            .as_u64()
            .unwrap();
        let charges = gateway.charges(&customer, 2).await;
        for charge in &charges {
            assert_eq!(charge["endpoint"], "batches");
            assert_eq!(charge["usage_source"], "reported");
            // Half of a credit for a million tokens.
            let cost = charge["charged"].as_str().unwrap();
            assert_eq!(credits(cost).nanos(), i64::try_from(tokens).unwrap() * 500);
        }
        for _ in 0..2 {
            let again = call(&gateway, &customer, Method::GET, &path)
                .await
                .expect(200);
            assert_eq!(again.body, results.body);
        }
        let errors = batch["error_file_id"].as_str().unwrap();
        let errors = format!("{FILES}/{errors}/content");
        let errors = call(&gateway, &customer, Method::GET, &errors).await;
        let errors = String::from_utf8(errors.expect(200).body.to_vec()).unwrap();
        assert!(errors.contains("fails"), "{errors}");
        let charges = gateway.charges(&customer, 2).await;
        let costs = charges.iter().map(|charge| charge["charged"].as_str());
        let spent = costs.fold(Credits::ZERO, |sum, one| {
            sum.checked_add(credits(one.unwrap())).unwrap()
        });
        let left = credits("1").checked_sub(spent).unwrap();
        assert_eq!(gateway.settled_balance(&customer).await, left);
        let list = call(&gateway, &customer, Method::GET, BATCHES)
            .await
            .expect(200)
            .json();
        assert_eq!(list["data"][0]["status"], "completed");
        let list = call(&gateway, &other, Method::GET, BATCHES)
            .await
            .expect(200)
            .json();
        assert_eq!(list["data"], json!([]));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_results_that_are_not_paid_for() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("0.4").await;
    // One of them takes what nobody could know: half a credit.
    let much = line("much", &json!({"user": "much"}));
    let lines: String = (0..4).map(|n| line(&format!("r{n}"), &json!({}))).collect();
    let (path, batch) = worked_off(&gateway, &customer, &(lines + &much)).await;
    for _ in 0..2 {
        let refused = call(&gateway, &customer, Method::GET, &path).await;
        assert_eq!(refused.expect(402).code(), "insufficient_quota");
    }
    let results = batch["output_file_id"].as_str().unwrap();
    // Throwing them away does not help either.
    let file = format!("{FILES}/{results}");
    let _ = call(&gateway, &customer, Method::DELETE, &file)
        .await
        .expect(402);
    // All or none: what is there is not taken for a part of them.
    assert_eq!(gateway.balance(&customer).await.total, credits("0.4"));
    // Nor are they got by naming them elsewhere.
    let parts = json!([{"type": "file", "file": {"file_id": results}}]);
    let body = json!({"model": "free", "messages": [{"role": "user", "content": parts}]});
    let _ = gateway.chat(&customer, &body).await.expect(404);
    gateway.top_up(&customer, credits("1")).await;
    let _ = call(&gateway, &customer, Method::GET, &path)
        .await
        .expect(200);
    let _ = gateway.charges(&customer, 5).await;
    let _ = call(&gateway, &customer, Method::DELETE, &file)
        .await
        .expect(200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_batches_that_begin_at_once_do_not_share_their_credit() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("0.001").await;
        // Each may cost 0.0006 and something.
        let lines = line("a", &json!({"max_tokens": 1000}));
        let input = file(&gateway, &customer, lines.as_bytes()).await;
        let all =
            futures_util::future::join_all((0..6).map(|_| begin(&gateway, &customer, &input)));
        let (begun, refused): (Vec<_>, Vec<_>) =
            all.await.into_iter().partition(|one| one.status == 200);
        assert_eq!((begun.len(), refused.len()), (1, 5));
        for one in refused {
            assert_eq!(one.expect(402).code(), "insufficient_quota");
        }
        // What is set aside for it nobody else spends, however hard they try.
        for _ in 0..3 {
            let all = chat("m", json!({"max_tokens": 1000}));
            let _ = gateway.chat(&customer, &all).await;
        }
        let held = gateway.balance(&customer).await.held;
        assert!(held > credits("0.0005"), "{held}");
        let batch = begun.first().unwrap().json();
        let path = format!("{BATCHES}/{}", batch["id"].as_str().unwrap());
        let batch = call(&gateway, &customer, Method::GET, &path).await;
        let output = batch.expect(200).json()["output_file_id"].clone();
        let content = format!("{FILES}/{}/content", output.as_str().unwrap());
        let _ = call(&gateway, &customer, Method::GET, &content)
            .await
            .expect(200);
        let charges = gateway
            .admin(Method::GET, "/charges?limit=1000", None)
            .await;
        let charges = charges.expect(200).json();
        let of_batch = |charge: &&Value| charge["endpoint"] == "batches";
        let all = charges["data"].as_array().unwrap();
        assert_eq!(all.iter().filter(of_batch).count(), 1, "{charges:#}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_with_what_it_is_for() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.batch_look_every = std::time::Duration::from_millis(100);
    })
    .await;
    let customer = gateway.customer("1").await;
    // Its only request fails: there is nothing to pay, and nobody has to ask.
    let lines = line("a", &json!({"user": "gone"}));
    let input = file(&gateway, &customer, lines.as_bytes()).await;
    let _ = begin(&gateway, &customer, &input).await.expect(200);
    assert_eq!(gateway.settled_balance(&customer).await, credits("1"));
    // One that is not over keeps its hold.
    let input = file(
        &gateway,
        &customer,
        line("a", &json!({"user": "slow"})).as_bytes(),
    )
    .await;
    let batch = begin(&gateway, &customer, &input).await.expect(200).json();
    let path = format!("{BATCHES}/{}", batch["id"].as_str().unwrap());
    let asked = || {
        let requests = gateway.provider.requests();
        requests.iter().filter(|one| one.path == path).count()
    };
    eventually("it was looked at twice", async || {
        (asked() >= 2).then_some(())
    })
    .await;
    assert!(gateway.balance(&customer).await.held > Credits::ZERO);
    let _ = call(&gateway, &customer, Method::POST, &format!("{path}/cancel"))
        .await
        .expect(200);
    assert_eq!(gateway.settled_balance(&customer).await, credits("1"));
    gateway.finish().await;
}

/// Changes the books of a gateway on SQLite behind its back.
async fn behind_its_back(gateway: &Gateway, change: &'static str) {
    let mut books = SqliteConnection::connect(gateway.place().url())
        .await
        .unwrap();
    sqlx::raw_sql(change).execute(&mut books).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_of_what_nobody_hears_of_again_ends() {
    const HOUR: &str = "UPDATE standing_holds SET created_at = created_at - 3600000000";
    const MONTH: &str = "UPDATE standing_holds SET created_at = created_at - 31 * 24 * 3600000000";
    const TWO_DAYS: &str = "UPDATE standing_holds SET created_at = created_at - 48 * 3600000000";
    let every = std::time::Duration::from_millis(100);
    let gateway =
        Gateway::start_with(Books::Sqlite, |settings| settings.batch_look_every = every).await;
    let customer = gateway.customer("1").await;
    let batch_of = async |user: &str| {
        let lines = line("a", &json!({"user": user}));
        let input = file(&gateway, &customer, lines.as_bytes()).await;
        let _ = begin(&gateway, &customer, &input).await.expect(200);
    };
    let looked_twice = async || {
        let looked_at = async || -> i64 {
            let mut books = SqliteConnection::connect(gateway.place().url())
                .await
                .unwrap();
            let look = sqlx::query_scalar("SELECT looked_at FROM standing_holds");
            look.fetch_one(&mut books).await.unwrap()
        };
        for _ in 0..2 {
            let before = looked_at().await;
            eventually("it was looked at", async || {
                (looked_at().await > before).then_some(())
            })
            .await;
        }
        assert!(gateway.balance(&customer).await.held > Credits::ZERO);
    };
    // Its provider knows it no more.
    batch_of("lost").await;
    assert_eq!(gateway.settled_balance(&customer).await, credits("1"));
    // Never over: its results would be gone after 32 days.
    batch_of("slow").await;
    behind_its_back(&gateway, MONTH).await;
    looked_twice().await;
    behind_its_back(&gateway, TWO_DAYS).await;
    assert_eq!(gateway.settled_balance(&customer).await, credits("1"));
    // Begun by a process that ended before it wrote down which batch it was.
    batch_of("slow").await;
    behind_its_back(&gateway, "DELETE FROM owned_objects WHERE kind = 'batch'").await;
    looked_twice().await;
    behind_its_back(&gateway, HOUR).await;
    assert_eq!(gateway.settled_balance(&customer).await, credits("1"));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_replicas_that_are_asked_at_once_charge_once() {
    let gateway = Gateway::start(Books::Postgres).await;
    let other = gateway.beside().await;
    let customer = gateway.customer("1").await;
    let lines: String = (0..150)
        .map(|n| line(&format!("r{n}"), &json!({})))
        .collect();
    let (path, _) = worked_off(&gateway, &customer, &lines).await;
    let fetch = async |gateway: &Gateway| {
        eventually("the results are there", async || {
            let answer = call(gateway, &customer, Method::GET, &path).await;
            match answer.status {
                200 => Some(answer.body),
                // Somebody else is at it.
                409 => None,
                status => panic!("{status}: {:?}", answer.body),
            }
        })
        .await
    };
    let all = tokio::join!(
        fetch(&gateway),
        fetch(&other),
        fetch(&gateway),
        fetch(&other)
    );
    assert!(all.0 == all.1 && all.1 == all.2 && all.2 == all.3);
    let _ = gateway.charges(&customer, 150).await;
    other.leave().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_begins_only_where_it_can_be_paid_for() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("0.0007").await;
    let fine = file(&gateway, &customer, line("a", &json!({})).as_bytes()).await;
    let asked = || {
        gateway
            .provider
            .requests()
            .iter()
            .filter(|one| one.path == BATCHES)
            .count()
    };
    for (lines, part) in [
        (
            line("a", &json!({})).replace("\"url\":\"/v1/chat", "\"url\":\"/v1/other"),
            "another endpoint",
        ),
        (
            line("a", &json!({})) + &line("b", &json!({"model": "m"})),
            "another model",
        ),
        ("no JSON\n".to_owned(), "no request"),
        (line("", &json!({})), "empty custom_id"),
        (String::from("\n"), "no requests"),
        (
            line("a", &json!({"model": "mock/batched"})),
            "write \"batched\"",
        ),
        (line("a", &json!({"model": "embed"})), "does not answer"),
    ] {
        let input = file(&gateway, &customer, lines.as_bytes()).await;
        let refused = begin(&gateway, &customer, &input).await.expect(400).json();
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{lines}: {message}");
    }
    let body = json!({"input_file_id": fine, "endpoint": "/v1/images/generations"});
    let request = gateway.call(Method::POST, BATCHES, &customer.secret);
    let wrong = Plain::read(request.body(body.to_string()).send().await.unwrap()).await;
    assert_eq!(wrong.expect(400).json()["error"]["param"], "endpoint");
    let _ = begin(&gateway, &customer, "file-nobodys").await.expect(404);
    assert_eq!(asked(), 0);
    // Each of its lines may cost so much that three at once are too many.
    let large: String = (0..4)
        .map(|n| line(&format!("r{n}"), &json!({"max_tokens": 100})))
        .collect();
    let large = file(&gateway, &customer, large.as_bytes()).await;
    let begun = begin(&gateway, &customer, &large).await.expect(200).json();
    let refused = begin(&gateway, &customer, &large).await.expect(402);
    assert_eq!(refused.code(), "insufficient_quota");
    assert_eq!(asked(), 1);
    let path = format!("{BATCHES}/{}/cancel", begun["id"].as_str().unwrap());
    let _ = call(&gateway, &customer, Method::POST, &path)
        .await
        .expect(200);
    gateway.finish().await;
}
