//! Responses that are kept: for the key that made them, here or at the provider, until they are deleted or expire.

use std::time::Duration;

use billing::{AccountId, KeyId};
use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use store::{KeptResponse, NewObject, ObjectKind, Owner, ResponseBody};
use tests::{
    Books, Customer, Gateway, PROMPT, PROMPT_TOKENS, Place, Plain, eventually, tokens_cost,
};

use super::{PATH, PLENTY, ask, plain, stream};

/// Every way to a response, and the status of each.
async fn ways(gateway: &Gateway, secret: &str, id: &str) -> [u16; 4] {
    let mut statuses = [0; 4];
    let ways = [
        (Method::GET, ""),
        (Method::GET, "/input_items"),
        (Method::POST, "/cancel"),
        (Method::DELETE, ""),
    ];
    for (status, (method, more)) in statuses.iter_mut().zip(ways) {
        let request = gateway.call(method, &format!("{PATH}/{id}{more}"), secret);
        let answer = Plain::read(request.send().await.unwrap()).await;
        if answer.status == 404 {
            assert_eq!(answer.code(), "not_found");
        }
        *status = answer.status;
    }
    statuses
}

async fn get(gateway: &Gateway, customer: &Customer, id: &str) -> Plain {
    gateway.get(&customer.secret, &format!("{PATH}/{id}")).await
}

fn id(answer: &Value) -> &str {
    answer["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_there_for_the_key_that_made_it_and_for_no_other() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer(PLENTY).await;
        let other = gateway.customer(PLENTY).await;
        let same_account = json!({"name": "second", "account_id": customer.account_id});
        let second = gateway.customer_with(same_account).await;
        // Composed out of a chat, kept by a provider, and kept for one that keeps none.
        for model in ["m", "native", "native-stateless"] {
            let made = plain(&gateway, &customer, &ask(model, json!({})))
                .await
                .expect(200);
            let answer = made.json();
            assert_eq!(answer["store"], true, "{model}");
            let id = id(&answer);
            for stranger in [&other, &second] {
                assert_eq!(
                    ways(&gateway, &stranger.secret, id).await,
                    [404; 4],
                    "{model}"
                );
                let on = json!({"previous_response_id": id});
                let refused = plain(&gateway, stranger, &ask(model, on)).await.expect(400);
                assert_eq!(refused.json()["error"]["param"], "previous_response_id");
            }
            let again = get(&gateway, &customer, id).await.expect(200);
            if model == "native" {
                // As its provider keeps it: without the cost.
                assert_eq!(again.json()["output"], answer["output"]);
            } else {
                assert_eq!(again.body, made.body);
            }
            assert_eq!(
                ways(&gateway, &customer.secret, id).await,
                [200, 200, 400, 200]
            );
            assert_eq!(
                ways(&gateway, &customer.secret, id).await,
                [404; 4],
                "{model}"
            );
            if model == "native" {
                let seen = gateway.provider.requests();
                assert!(seen.iter().any(|seen| seen.method == "DELETE"));
            }
        }
        assert_eq!(ways(&gateway, "sk-tw-nobody", "resp_1").await, [401; 4]);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_is_said_again() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer(PLENTY).await;
        let say = |text: &str| {
            let message = json!({"role": "assistant", "content": text});
            let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
            let whole = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]});
            gateway
                .provider
                .script_once("m", Script::new().raw(whole.to_string()));
        };
        say("one");
        let more = json!({"instructions": "Be brief"});
        let first = plain(&gateway, &customer, &ask("m", more))
            .await
            .expect(200)
            .json();
        say("two");
        let more = json!({"input": "And?", "previous_response_id": id(&first)});
        let second = plain(&gateway, &customer, &ask("m", more))
            .await
            .expect(200)
            .json();
        assert_eq!(second["previous_response_id"], first["id"]);
        say("three");
        let tail = json!([{"type": "function_call_output", "call_id": "c", "output": "rain"}]);
        let more =
            json!({"input": tail, "previous_response_id": id(&second), "instructions": "Be long"});
        let third = plain(&gateway, &customer, &ask("m", more))
            .await
            .expect(200)
            .json();
        let sent = gateway.provider.requests().pop().unwrap().json();
        // Instructions are of one request alone.
        assert_eq!(
            sent["messages"],
            json!([
                {"role": "system", "content": "Be long"},
                {"role": "user", "content": PROMPT},
                {"role": "assistant", "content": "one"},
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": "two"},
                {"role": "tool", "tool_call_id": "c", "content": "rain"}
            ])
        );
        let items = async |query: &str| {
            let path = format!("{PATH}/{}/input_items{query}", id(&third));
            gateway
                .get(&customer.secret, &path)
                .await
                .expect(200)
                .json()
        };
        let all = items("?order=asc").await;
        let types: Vec<&str> = all["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            types,
            [
                "message",
                "message",
                "message",
                "message",
                "function_call_output"
            ]
        );
        assert_eq!(
            all["data"][0]["content"],
            json!([{"type": "input_text", "text": PROMPT}])
        );
        let newest = items("?limit=2").await;
        assert_eq!(newest["has_more"], true);
        assert_eq!(newest["data"][0], all["data"][4]);
        assert_eq!(newest["first_id"], all["data"][4]["id"]);
        let after = newest["last_id"].as_str().unwrap();
        let rest = items(&format!("?after={after}")).await;
        assert_eq!(rest["has_more"], false);
        assert_eq!(rest["data"].as_array().unwrap().len(), 3);
        // A provider that has responses itself goes on with it, too: it is told all.
        for model in ["native", "native-stateless"] {
            let more = json!({"input": "Go on", "previous_response_id": id(&second)});
            let _ = plain(&gateway, &customer, &ask(model, more))
                .await
                .expect(200);
            let sent = gateway.provider.requests().pop().unwrap().json();
            assert!(sent["previous_response_id"].is_null());
            assert_eq!(sent["input"].as_array().unwrap().len(), 5, "{sent}");
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_provider_keeps_is_gone_on_with_there_and_held_for() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let first = plain(&gateway, &customer, &ask("native", json!({})))
        .await
        .expect(200)
        .json();
    assert!(gateway.provider.requests().pop().unwrap().json()["store"].is_null());
    let more = json!({"previous_response_id": id(&first), "stream": false});
    let second = plain(&gateway, &customer, &ask("native", more.clone()))
        .await
        .expect(200)
        .json();
    let sent = gateway.provider.requests().pop().unwrap().json();
    assert_eq!(sent["previous_response_id"], first["id"]);
    assert_eq!(sent["input"], PROMPT);
    let before = first["usage"]["total_tokens"].as_u64().unwrap();
    assert!(second["usage"]["input_tokens"].as_u64().unwrap() > before);
    // Another provider does not know it.
    let refused = plain(&gateway, &customer, &ask("m", more.clone()))
        .await
        .expect(400);
    assert_eq!(refused.json()["error"]["param"], "previous_response_id");
    // What the provider remembers is part of the prompt: it is held for, and charged where it is cut.
    let events = super::native::words(40);
    gateway.provider.script(
        "native",
        Script::new().response_events(&events).gate("never"),
    );
    let spend = gateway.settled_balance(&customer).await;
    let paid = tokens_cost(PROMPT_TOKENS + before + 5);
    let less = json!({"amount": format!("-{}", spend.saturating_sub(paid)), "kind": "adjustment"});
    let path = format!("/accounts/{}/credits", customer.account_id);
    let _ = gateway
        .admin(Method::POST, &path, Some(less))
        .await
        .expect(201);
    let events = stream(&gateway, &customer, &ask("native", more)).await;
    assert_eq!(tests::count_tokens(&super::text(&events)), 5);
    assert_eq!(gateway.settled_balance(&customer).await, tokens_cost(0));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_named_by_the_key_that_it_was_said_to_and_by_no_other() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer(PLENTY).await;
        let same_account = json!({"name": "second", "account_id": customer.account_id});
        let second = gateway.customer_with(same_account).await;
        for model in ["m", "native-stateless", "native"] {
            let made = plain(&gateway, &customer, &ask(model, json!({}))).await;
            let made = made.expect(200).json();
            let item = &made["output"][0];
            let user = |text: &str| json!({"role": "user", "content": text});
            let reference = json!({"type": "item_reference", "id": item["id"]});
            let named = json!({"input": [user("a"), reference, user("b")]});
            let asked = gateway.provider.stats().requests;
            let refused = plain(&gateway, &second, &ask(model, named.clone())).await;
            assert_eq!(refused.expect(400).json()["error"]["param"], "input[1]");
            assert_eq!(gateway.provider.stats().requests, asked);
            let _ = plain(&gateway, &customer, &ask(model, named.clone()))
                .await
                .expect(200);
            let sent = gateway.provider.requests().pop().unwrap().json();
            match model {
                "m" => {
                    assert_eq!(sent["messages"][1]["role"], "assistant");
                    assert_eq!(
                        sent["messages"][1]["content"], item["content"][0]["text"],
                        "{sent}"
                    );
                }
                // Its provider keeps it.
                "native" => assert_eq!(sent["input"], named["input"]),
                _ => assert_eq!(sent["input"][1], *item),
            }
            if model == "native" {
                let other = plain(&gateway, &customer, &ask("m", named.clone())).await;
                assert_eq!(other.expect(400).json()["error"]["param"], "input");
            }
            let path = format!("{PATH}/{}", id(&made));
            let gone = gateway.call(Method::DELETE, &path, &customer.secret);
            let _ = Plain::read(gone.send().await.unwrap()).await.expect(200);
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_named_where_it_is_the_keys_own_at_that_provider() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let (customer, other) = (
        gateway.customer(PLENTY).await,
        gateway.customer(PLENTY).await,
    );
    for (id, provider) in [("file-open", "open"), ("file-mock", "mock")] {
        let new = NewObject {
            owner: Owner {
                account: customer.account_id.parse().unwrap(),
                key: customer.key_id.parse().unwrap(),
            },
            provider,
            id,
            kind: ObjectKind::File,
            about: None,
            made_by: None,
            batch: None,
        };
        assert!(gateway.app().store.own(&new).await.unwrap());
    }
    for kind in ["input_file", "input_image"] {
        let body = |file: &str| {
            let part = json!({"type": kind, "file_id": file});
            ask(
                "native",
                json!({"input": [{"role": "user", "content": [part]}]}),
            )
        };
        let _ = plain(&gateway, &customer, &body("file-open"))
            .await
            .expect(200);
        let sent = gateway.provider.requests().pop().unwrap().json();
        assert_eq!(sent["input"][0]["content"][0]["file_id"], "file-open");
        // Somebody else's is none; nobody's, and one elsewhere, cannot be told from somebody's.
        let _ = plain(&gateway, &other, &body("file-open"))
            .await
            .expect(404);
        for none in ["file-mock", "file-operators"] {
            let refused = plain(&gateway, &customer, &body(none)).await.expect(400);
            assert_eq!(refused.json()["error"]["param"], "input[0]");
        }
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_kept_once_it_is_over_and_only_whole() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer(PLENTY).await;
        let mut kept = Vec::new();
        for model in ["m", "native", "native-stateless"] {
            let events = stream(&gateway, &customer, &ask(model, json!({}))).await;
            let last = events.chunks().pop().unwrap()["response"].clone();
            let again = get(&gateway, &customer, id(&last)).await.expect(200).json();
            assert_eq!(again["output"], last["output"], "{model}");
            kept.push(last);
        }
        let script = Script::new().role().tokens(40).gate("never");
        gateway.provider.script("m", script);
        let poor = gateway.customer(tokens_cost(PROMPT_TOKENS + 5)).await;
        let events = stream(&gateway, &poor, &ask("m", json!({}))).await;
        let [.., failed, _] = &events.chunks()[..] else {
            panic!()
        };
        assert_eq!(
            ways(&gateway, &poor.secret, id(&failed["response"])).await,
            [404; 4]
        );
        let gateway = gateway.restart().await;
        for last in kept {
            let again = get(&gateway, &customer, id(&last)).await.expect(200).json();
            assert_eq!(again["output"], last["output"]);
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shall_not_be_kept_is_not() {
    for off in [false, true] {
        let gateway = Gateway::start_with(Books::Sqlite, |settings| {
            if off {
                settings.responses_kept = Duration::ZERO;
            }
        })
        .await;
        let customer = gateway.customer(PLENTY).await;
        for model in ["m", "native", "native-stateless"] {
            let more = json!({"store": off});
            let answer = plain(&gateway, &customer, &ask(model, more))
                .await
                .expect(200)
                .json();
            assert_eq!(answer["store"], false, "{model}");
            assert_eq!(
                ways(&gateway, &customer.secret, id(&answer)).await,
                [404; 4]
            );
            if model != "m" {
                let sent = gateway.provider.requests().pop().unwrap().json();
                assert_eq!(sent["store"], false, "{model}");
            }
        }
        gateway.finish().await;
    }
    let gateway =
        Gateway::start_with(Books::Sqlite, |settings| settings.response_bytes_max = 900).await;
    let customer = gateway.customer(PLENTY).await;
    let answer = plain(
        &gateway,
        &customer,
        &ask("m", json!({"input": "word ".repeat(300)})),
    )
    .await;
    let answer = answer.expect(200).json();
    assert_eq!(answer["store"], false);
    assert_eq!(get(&gateway, &customer, id(&answer)).await.status, 404);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_expires_and_the_oldest_give_way() {
    for books in Books::ALL {
        let gateway = Gateway::start_at(Place::new(books).await, |_| ()).await;
        let customer = gateway.customer(PLENTY).await;
        let account: AccountId = customer.account_id.parse().unwrap();
        let key: KeyId = customer.key_id.parse().unwrap();
        let store = &gateway.app().store;
        let response = |id: &str| KeptResponse {
            id: id.to_owned(),
            model: "mock/m".to_owned(),
            tokens: 3,
            thought: 1,
            body: Some(ResponseBody {
                input: b"[]".to_vec(),
                response: vec![b' '; 1_000],
            }),
            items: Vec::new(),
        };
        let day = Duration::from_secs(86_400);
        store
            .keep_response(account, key, &response("over"), Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(store.response(account, key, "over").await.unwrap(), None);
        for name in ["a", "b", "c", "c"] {
            store
                .keep_response(account, key, &response(name), day)
                .await
                .unwrap();
        }
        assert_eq!(
            store.response(account, key, "c").await.unwrap(),
            Some(response("c"))
        );
        store
            .bound_responses(response("a").bytes() * 2)
            .await
            .unwrap();
        let mut left = Vec::new();
        for name in ["a", "b", "c"] {
            left.push(store.response(account, key, name).await.unwrap().is_some());
        }
        assert_eq!(left, [false, true, true]);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kept_response_cannot_do_is_said() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let made = plain(&gateway, &customer, &ask("m", json!({})))
        .await
        .expect(200)
        .json();
    let id = id(&made);
    for (query, named) in [
        ("?stream=true", "stream"),
        ("?surprise=1", "surprise"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?order=up", "order"),
        ("/input_items?after=nobody", "after"),
    ] {
        let path = format!("{PATH}/{id}{query}");
        let refused = gateway.get(&customer.secret, &path).await.expect(400);
        assert_eq!(refused.json()["error"]["param"], named);
    }
    let include = format!("{PATH}/{id}?include[]=a&include[]=b");
    let _ = gateway.get(&customer.secret, &include).await.expect(200);
    let count = gateway.call(
        Method::POST,
        "/v1/responses/input_tokens",
        &gateway.customer("0").await.secret,
    );
    let sent = count
        .body(ask("m", json!({})).to_string())
        .send()
        .await
        .unwrap();
    let counted = Plain::read(sent).await.expect(200).json();
    assert_eq!(
        counted,
        json!({"object": "response.input_tokens", "input_tokens": PROMPT_TOKENS})
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_finds_its_response_where_its_stream_is_drained() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.client_gone = gateway::settings::ClientGonePolicy::Drain;
    })
    .await;
    let customer = gateway.customer(PLENTY).await;
    let script = Script::new()
        .role()
        .tokens(3)
        .gate("go")
        .tokens(3)
        .finish("stop")
        .usage()
        .done();
    gateway.provider.script("m", script);
    let body = ask("m", json!({"stream": true}));
    let request = gateway
        .call(Method::POST, PATH, &customer.secret)
        .body(body.to_string());
    let mut streaming = tests::Streaming::new(request.send().await.unwrap());
    let begun = streaming.next().await.unwrap();
    let begun: Value = serde_json::from_str(&begun).unwrap();
    drop(streaming);
    gateway.provider.open("go");
    let id = begun["response"]["id"].as_str().unwrap().to_owned();
    eventually("the response is kept", async || {
        (get(&gateway, &customer, &id).await.status == 200).then_some(())
    })
    .await;
    gateway.finish().await;
}
