//! Prices: what an answer says that it cost is what the books took, part by part, and what the provider is owed lies beside it.

use billing::Credits;
use gateway::prices::Markup;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{Books, Customer, Gateway, PROMPT_TOKENS, Plain, chat, tokens_cost};

const OUTPUT: u64 = 5;

/// An answer by a service tier of the provider's own choice.
fn answer(tier: &str) -> Script {
    Script::new()
        .tokens(OUTPUT)
        .usage_json(&format!(
            r#"{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{OUTPUT},"total_tokens":{},"service_tier":"{tier}"}}"#,
            PROMPT_TOKENS + OUTPUT
        ))
        .done()
}

async fn ask(gateway: &Gateway, customer: &Customer, body: Value) -> Plain {
    let request = gateway.chat_request(customer, body.to_string());
    Plain::read(request.send().await.unwrap()).await
}

fn amount(value: &Value) -> Credits {
    value.as_str().unwrap().parse().unwrap()
}

fn sum(parts: &Value) -> Credits {
    let parts = parts.as_object().unwrap().values();
    parts.fold(Credits::ZERO, |sum, part| {
        sum.checked_add(amount(part)).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_add_up_to_the_ledger() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        let markup = |factor: &str, model: Option<&str>| Markup {
            factor: factor.parse().unwrap(),
            account: None,
            group: None,
            model: model.map(Into::into),
        };
        settings.markups = vec![markup("1.1", None), markup("2", Some("*/tiered"))];
    })
    .await;
    let customer = gateway.customer("1").await;
    let mut said = Credits::ZERO;
    let plain = tokens_cost(PROMPT_TOKENS + OUTPUT).nanos();
    // What is asked for, what the provider says it served by, the thousandths of the plain price
    // that the provider takes, and those that the customer pays.
    let table = [
        ("m", None, "default", 1_000, 1_100),
        ("tiered", None, "default", 1_000, 2_000),
        ("tiered", Some("flex"), "flex", 500, 1_000),
        ("tiered", Some("flex"), "default", 1_000, 2_000),
        ("tiered", Some("priority"), "priority", 3_000, 6_000),
        ("tiered", Some("priority"), "default", 1_000, 2_000),
        ("tiered", Some("auto"), "priority", 3_000, 6_000),
    ];
    for (place, (model, asked, served, provider, customer_pays)) in table.into_iter().enumerate() {
        gateway.provider.script(model, answer(served));
        let mut body = chat(model, json!({"max_tokens": 50}));
        if let Some(asked) = asked {
            body["service_tier"] = asked.into();
        }
        let plain_answer = ask(&gateway, &customer, body).await;
        assert_eq!(plain_answer.status, 200, "{}", plain_answer.json());
        let usage = &plain_answer.json()["usage"];
        let cost = amount(&usage["cost"]);
        assert_eq!(
            cost.nanos(),
            plain * customer_pays / 1_000,
            "{model} {asked:?} {served}"
        );
        assert_eq!(sum(&usage["cost_details"]), cost);
        said = said.checked_add(cost).unwrap();
        let owed = gateway.charges(&customer, place + 1).await;
        let newest = owed.first().unwrap();
        assert_eq!(amount(&newest["charged"]), cost);
        assert_eq!(
            amount(&newest["provider_cost"]).nanos(),
            plain * provider / 1_000
        );
    }
    // Nobody wrote what priority costs here.
    let refused = ask(&gateway, &customer, {
        let mut body = chat("m", json!({"max_tokens": 50}));
        body["service_tier"] = "priority".into();
        body
    })
    .await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["param"], "service_tier");
    let left = gateway.settled_balance(&customer).await;
    assert_eq!(left.checked_add(said).unwrap(), "1".parse().unwrap());
    gateway.finish().await;
}
