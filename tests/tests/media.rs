//! Images and audio: what they are sold by, forms that are passed on, and streams of events.

use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{Books, Customer, Gateway, Plain, Streaming, credits, form};

async fn post(gateway: &Gateway, customer: &Customer, path: &str, body: &Value) -> Plain {
    let request = gateway.call(Method::POST, path, &customer.secret);
    Plain::read(request.body(body.to_string()).send().await.unwrap()).await
}

/// Seconds of silence in samples of 16 bits at 8 kHz.
fn silence(seconds: u32) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(8_000_u32.to_le_bytes());
    file.extend(16_000_u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data\0\0\0\0");
    file.resize(file.len() + 16_000 * seconds as usize, 0);
    file
}

async fn hear(
    gateway: &Gateway,
    customer: &Customer,
    path: &str,
    fields: &[(&str, &str)],
    file: &[u8],
) -> Plain {
    let request = gateway.call(Method::POST, path, &customer.secret);
    let request = form(fields, &[("file", file)]).onto(request);
    Plain::read(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_cost_by_their_size_and_quality() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("1").await;
        for (more, cost) in [
            (json!({}), "0.04"),
            (json!({"n": 2}), "0.08"),
            (json!({"size": "1792x1024", "quality": "hd"}), "0.12"),
            // What has no price of its own costs what the dearest costs.
            (json!({"size": "auto"}), "0.12"),
        ] {
            let mut body = json!({"model": "picture", "prompt": "a cat", "style": "vivid"});
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let answer = post(&gateway, &customer, "/v1/images/generations", &body).await;
            assert_eq!(answer.expect(200).json()["usage"]["cost"], cost, "{body}");
            assert_eq!(gateway.provider.requests().last().unwrap().json(), body);
        }
        // One that comes is paid, of two that were asked for.
        let one = r#"{"created":1,"data":[{"url":"https://images.example/1"}]}"#;
        gateway
            .provider
            .script_once("picture", Script::new().raw(one));
        let body = json!({"model": "picture", "prompt": "a cat", "n": 2});
        let answer = post(&gateway, &customer, "/v1/images/generations", &body).await;
        assert_eq!(answer.expect(200).json()["usage"]["cost"], "0.04");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_sold_by_tokens_cost_what_is_reported() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let mut body = json!({"model": "picture-tokens", "prompt": "a fat cat"});
    let answer = post(&gateway, &customer, "/v1/images/generations", &body).await;
    // 3 tokens at 5 and 100 at 40 a million.
    assert_eq!(answer.expect(200).json()["usage"]["cost"], "0.004015");
    body["stream"] = json!(true);
    let request = gateway.call(Method::POST, "/v1/images/generations", &customer.secret);
    let sent = request.body(body.to_string()).send().await.unwrap();
    let events = Streaming::new(sent).rest().await;
    let chunks = events.chunks();
    assert_eq!(chunks[0]["type"], "image_generation.partial_image");
    assert_eq!(chunks[1]["usage"]["cost"], "0.004015");
    let charges = gateway.charges(&customer, 2).await;
    assert!(charges.iter().all(|charge| charge["end"] == "completed"));
    // The worst case of an image is 200 tokens and those of its partial images: less is refused.
    let customer = gateway.customer("0.019").await;
    let refused = post(&gateway, &customer, "/v1/images/generations", &body).await;
    assert_eq!(refused.expect(402).code(), "insufficient_quota");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_are_forms_that_are_passed_on() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let fields = [("prompt", "a hat"), ("model", "mock/picture"), ("n", "2")];
    let request = gateway.call(Method::POST, "/v1/images/edits", &customer.secret);
    let files: [(&str, &[u8]); 2] = [("image[]", b"PNG one"), ("image[]", b"PNG two")];
    let sent = form(&fields, &files).onto(request).send().await.unwrap();
    let answer = Plain::read(sent).await.expect(200).json();
    assert_eq!(answer["usage"]["cost"], "0.08");
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    let seen = gateway.provider.requests().pop().unwrap();
    let body = String::from_utf8(seen.body.to_vec()).unwrap();
    for part in [
        "PNG one",
        "PNG two",
        "\r\n\r\npicture\r\n",
        "filename=\"it.wav\"",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let model = ("model", "picture");
    for (fields, status) in [
        (vec![model, ("prompt", "a"), ("surprise", "1")], 400),
        (vec![model, ("prompt", "a"), ("n", "eleven")], 400),
        (vec![model, ("prompt", "a"), ("prompt", "b")], 400),
        // The model that OpenAI's API takes is not served here.
        (vec![("prompt", "a")], 404),
    ] {
        let request = gateway.call(Method::POST, "/v1/images/edits", &customer.secret);
        let request = form(&fields, &[("image", b"PNG")]).onto(request);
        let answer = Plain::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{fields:?}: {:?}", answer.body);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_costs_by_characters_or_by_the_tokens_that_only_events_tell() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let body = json!({"model": "speak", "input": "twelve chars", "voice": "alloy"});
    let answer = post(&gateway, &customer, "/v1/audio/speech", &body)
        .await
        .expect(200);
    assert_eq!(answer.header("content-type"), "audio/mpeg");
    assert_eq!(answer.header("x-tollway-cost"), "0.00018");
    assert_eq!(answer.body.len(), 12 * 24);
    assert_eq!(gateway.provider.requests().pop().unwrap().json(), body);
    // The client gets audio, though the provider is asked for events.
    let body = json!({"model": "speak-tokens", "input": "twelve chars", "voice": "alloy"});
    let spoken = post(&gateway, &customer, "/v1/audio/speech", &body)
        .await
        .expect(200);
    assert_eq!(spoken.body, answer.body);
    let seen = gateway.provider.requests().pop().unwrap().json();
    assert_eq!(seen["stream_format"], "sse");
    let mut body = body;
    body["stream_format"] = json!("sse");
    let request = gateway.call(Method::POST, "/v1/audio/speech", &customer.secret);
    let sent = request.body(body.to_string()).send().await.unwrap();
    let events = Streaming::new(sent).rest().await.chunks();
    let last = events.last().unwrap();
    assert_eq!(last["type"], "speech.audio.done");
    // 2 tokens at 1 and 50 at 12 a million.
    assert_eq!(last["usage"]["cost"], "0.000602");
    let charges = gateway.charges(&customer, 3).await;
    assert_eq!(charges[1]["charged"], "0.000602");
    assert_eq!(
        charges[1]["usage"]["audio_completion"],
        charges[0]["usage"]["audio_completion"]
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transcriptions_cost_by_the_second() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let path = "/v1/audio/transcriptions";
    let model = ("model", "hear");
    let answer = hear(&gateway, &customer, path, &[model], &silence(3)).await;
    // The provider says 2 seconds; the file said 3.
    assert_eq!(answer.expect(200).json()["usage"]["cost"], "0.0002");
    let fields = [model, ("response_format", "text")];
    let answer = hear(&gateway, &customer, path, &fields, &silence(3))
        .await
        .expect(200);
    assert_eq!(&answer.body[..], b"All is well");
    assert_eq!(answer.header("x-tollway-cost"), "0.0003");
    let path = "/v1/audio/translations";
    let translated = hear(&gateway, &customer, path, &[model], &silence(1)).await;
    assert_eq!(translated.expect(200).json()["text"], "All is well");
    let path = "/v1/audio/transcriptions";
    // Credit for two seconds is not enough for three.
    let customer = gateway.customer("0.0002").await;
    let _ = hear(&gateway, &customer, path, &[model], &silence(3))
        .await
        .expect(402);
    let _ = hear(&gateway, &customer, path, &[model], &silence(2))
        .await
        .expect(200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_streams_and_is_cut_when_credit_runs_out() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let path = "/v1/audio/transcriptions";
    let fields = [("model", "hear-tokens"), ("stream", "true")];
    let stream = async |customer: &Customer| {
        let request = gateway.call(Method::POST, path, &customer.secret);
        let request = form(&fields, &[("file", &silence(1))]).onto(request);
        Streaming::new(request.send().await.unwrap()).rest().await
    };
    let customer = gateway.customer("1").await;
    let chunks = stream(&customer).await.chunks();
    let last = chunks.last().unwrap();
    assert_eq!(last["type"], "transcript.text.done");
    assert_eq!(
        (chunks[0]["delta"].as_str(), chunks.len()),
        (Some("All "), 4)
    );
    // 4 text tokens and 3 of output at 1, 10 of audio at 2 a million.
    assert_eq!(last["usage"]["cost"], "0.000027");
    // A second is 50 tokens of audio at most; the model writes 6 tokens at most and this one does
    // not keep to that.
    let event = |word: &str| {
        format!(
            "data: {}\n\n",
            json!({"type": "transcript.text.delta", "delta": word})
        )
    };
    let endless: String = (0..200).map(|_| event("word word word ")).collect();
    let script = Script::new().raw(endless).always_stream();
    gateway.provider.script("hear-tokens", script);
    let customer = gateway.customer("0.000114").await;
    let events = stream(&customer).await;
    let error = events.error().unwrap();
    assert_eq!(
        (&error["code"], &error["status"]),
        (&json!("insufficient_quota"), &json!(402))
    );
    assert_eq!(gateway.charge(&customer).await["end"], "credits_exhausted");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_images_and_audio_that_fail_cost_nothing() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    for model in ["picture", "speak", "hear"] {
        gateway.provider.script(model, Script::error(500));
    }
    let image = json!({"model": "picture", "prompt": "a"});
    let _ = post(&gateway, &customer, "/v1/images/generations", &image)
        .await
        .expect(502);
    let speech = json!({"model": "speak", "input": "a"});
    let _ = post(&gateway, &customer, "/v1/audio/speech", &speech)
        .await
        .expect(502);
    let path = "/v1/audio/transcriptions";
    let _ = hear(&gateway, &customer, path, &[("model", "hear")], &silence(1))
        .await
        .expect(502);
    assert_eq!(gateway.settled_balance(&customer).await, credits("1"));
    gateway.finish().await;
}
