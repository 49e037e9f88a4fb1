//! Counting beside the provider: factors that follow a tokenizer which is not ours, kept and used.

use std::sync::LazyLock;

use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{Books, Customer, Dice, Gateway, Plain, eventually, metric, tokens_cost, usage};
use tiktoken_rs::CoreBPE;

/// The provider's tokenizer, which the gateway does not know: it counts in `o200k_base`.
static THEIRS: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::cl100k_base().unwrap());

/// Answers until the factor is to be right.
const ANSWERS: usize = 50;
/// Tokens around a prompt of one message, as the provider counts them.
const FRAMING: u64 = 3 + 3 + 1;

/// Sentences whose tokens in the two encodings are far apart (Russian: about 1.6 of the one for
/// one of the other) and by how much differs from one to the next.
const SENTENCES: [&str; 12] = [
    "Ранним утром поезд медленно отошёл от маленькой станции, и за окном потянулись туманные поля. ",
    "Инженер записал показания приборов в журнал и ещё раз проверил давление в котле. ",
    "Почему вода в озере зимой не замерзает до самого дна? Потому что лёд легче воды. ",
    "Договор вступает в силу с момента подписания обеими сторонами и действует до конца года. ",
    "Бабушка достала из печи румяный пирог с яблоками, и вся кухня наполнилась запахом корицы. ",
    "Функция возвращает ошибку, если файл не найден или у пользователя нет прав на чтение. ",
    "На площади собрались люди, чтобы послушать оркестр и посмотреть на праздничный салют. ",
    "Температура воздуха завтра поднимется до двадцати пяти градусов, местами пройдут дожди. ",
    "Учёные обнаружили новый вид глубоководных рыб, живущих в полной темноте. ",
    "Книга состоит из трёх частей, каждая из которых посвящена отдельному периоду истории. ",
    "Чтобы приготовить тесто, смешайте муку, два яйца, щепотку соли и стакан тёплого молока. ",
    "Команда выиграла решающий матч в дополнительное время благодаря точному удару капитана. ",
];

fn theirs(text: &str) -> u64 {
    THEIRS.encode_ordinary(text).len() as u64
}

fn text(dice: &mut Dice, sentences: u64) -> String {
    (0..sentences).map(|_| *dice.one_of(&SENTENCES)).collect()
}

fn chat(prompt: &str, stream: bool) -> Value {
    json!({"model": "learner", "stream": stream, "messages": [{"role": "user", "content": prompt}]})
}

/// One request that the provider counts by its own tokenizer.
async fn exchange(gateway: &Gateway, customer: &Customer, dice: &mut Dice, stream: bool) {
    let length = 2 + dice.below(12);
    let (prompt, answer) = (text(dice, length), text(dice, length));
    let reported = usage(FRAMING + theirs(&prompt), theirs(&answer));
    let script = Script::new().words(&answer).finish("stop");
    gateway
        .provider
        .script("learner", script.usage_json(&reported).done());
    let body = chat(&prompt, stream);
    if stream {
        let _ = gateway.stream(customer, body).await.rest().await;
    } else {
        let _ = gateway.chat(customer, body).await.expect(200);
    }
}

async fn factors(gateway: &Gateway) -> Value {
    let path = "/factors?provider=mock&model=learner";
    let list = gateway.admin(Method::GET, path, None).await.expect(200);
    list.json()["data"][0].clone()
}

/// Answers that were compared for one side, written down or not.
fn compared(factors: &Value, side: &str) -> u64 {
    let number = |name: &str| factors[side][name].as_u64().unwrap();
    number("compared") + number("waiting")
}

/// How far the gateway's count of new prompts is from the provider's, in percent.
async fn error_percent(gateway: &Gateway, customer: &Customer, dice: &mut Dice) -> f64 {
    let (mut ours, mut truth) = (0, 0);
    for _ in 0..10 {
        let prompt = text(dice, 20);
        let call = gateway.call(Method::POST, "/v1/quote", &customer.secret);
        let call = call
            .header("content-type", "application/json")
            .body(chat(&prompt, false).to_string());
        let quote = Plain::read(call.send().await.unwrap()).await.expect(200);
        ours += quote.json()["prompt_tokens"].as_u64().unwrap();
        truth += FRAMING + theirs(&prompt);
    }
    ours.abs_diff(truth) as f64 * 100.0 / truth as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_factor_follows_the_answers_is_kept_and_cuts_streams() {
    for books in Books::ALL {
        let gateway = Gateway::start_with(books, |s| s.samples_per_minute = 60_000).await;
        let customer = gateway.customer("10").await;
        let mut dice = Dice::new(7);
        let before = error_percent(&gateway, &customer, &mut dice).await;
        assert!(before > 20.0, "there is nothing to learn: {before:.1} %");
        for n in 0..ANSWERS {
            exchange(&gateway, &customer, &mut dice, n % 2 == 0).await;
            // One request is counted at a time; the next one is to be counted too.
            eventually("the answer is counted", async || {
                let factors = factors(&gateway).await;
                let all = (n + 1) as u64;
                (compared(&factors, "prompt") == all && compared(&factors, "completion") == all)
                    .then_some(())
            })
            .await;
        }
        let after = error_percent(&gateway, &customer, &mut dice).await;
        let learned = factors(&gateway).await;
        assert!(
            after < 5.0,
            "{after:.1} % off after {ANSWERS} answers: {learned}"
        );
        println!("{books:?}: {before:.1} % off before, {after:.1} % after {ANSWERS} answers");
        counted_beside_reported(&gateway, &customer).await;
        cut_where_the_provider_would_count(&gateway, &mut dice).await;
        // Kept over a restart.
        let learned = factors(&gateway).await;
        let gateway = gateway.restart().await;
        let kept = factors(&gateway).await;
        for side in ["prompt", "completion"] {
            assert_eq!(kept[side]["factor"], learned[side]["factor"], "{side}");
            assert!(compared(&kept, side) >= ANSWERS as u64);
            assert_eq!(kept[side]["waiting"], 0);
        }
        let name = r#"tollway_token_factor{model="learner",provider="mock",side="prompt"}"#;
        let shown = metric(&gateway.metrics().await, name).unwrap();
        assert_eq!(kept["prompt"]["factor"], json!(format!("{shown:.3}")));
        gateway.finish().await;
    }
}

/// Every request was sampled, so each charge has both figures; the last ones agree.
async fn counted_beside_reported(gateway: &Gateway, customer: &Customer) {
    let charges = gateway.charges(customer, ANSWERS).await;
    for charge in &charges {
        assert_eq!(charge["usage_source"], "reported");
        assert!(charge["counted"]["prompt_tokens"].is_u64());
    }
    let newest = &charges[0];
    let ratio = newest["counted"]["completion_tokens"].as_f64().unwrap()
        / newest["usage"]["completion_tokens"].as_f64().unwrap();
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
}

/// A stream on little credit ends where the provider would have counted as many tokens as were paid.
async fn cut_where_the_provider_would_count(gateway: &Gateway, dice: &mut Dice) {
    const PAID: u64 = 700;
    let answer = text(dice, 80);
    let script = Script::new().words(&answer).finish("stop").done();
    gateway.provider.script("learner", script);
    let customer = gateway.customer(tokens_cost(PAID)).await;
    let prompt = text(dice, 3);
    let events = gateway.stream(&customer, chat(&prompt, true)).await;
    let events = events.rest().await;
    assert_eq!(events.error().unwrap()["code"], "insufficient_quota");
    let truth = FRAMING + theirs(&prompt) + theirs(&events.text());
    let off = truth.abs_diff(PAID) as f64 * 100.0 / PAID as f64;
    assert!(off < 5.0, "{truth} tokens for {PAID} paid: {off:.1} %");
}
