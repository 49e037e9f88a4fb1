//! Requests: what is read, what is refused and how it is named, what a prompt consists of.

use dialect::{ChatRequest, RequestError, RequestLimits};
use proptest::prelude::*;
use tokens::{Detail, Part};

const HI: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

fn parse(body: &str) -> Result<ChatRequest<'_>, RequestError> {
    ChatRequest::parse(body.as_bytes(), &RequestLimits::default())
}

/// A sound request with `members` added.
fn with(members: &str) -> String {
    format!(
        r#"{{"model":"m",{HI}{}{members}}}"#,
        if members.is_empty() { "" } else { "," }
    )
}

/// The parameter that a refusal names.
fn refused(body: &str) -> Option<String> {
    parse(body)
        .expect_err(body)
        .param
        .map(|param| param.into_owned())
}

#[test]
fn what_the_gateway_needs_is_read() {
    let body = with(
        r#""stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":7,"n":3"#,
    );
    let request = parse(&body).unwrap();
    assert_eq!(request.model(), "m");
    assert!(request.stream() && request.include_usage());
    assert_eq!(
        (
            request.output_limit(),
            request.choices(),
            request.messages()
        ),
        (Some(7), 3, 1)
    );
    assert_eq!(request.unwatchable(), None);

    let body = with("");
    let request = parse(&body).unwrap();
    assert!(!request.stream() && !request.include_usage());
    assert_eq!((request.output_limit(), request.choices()), (None, 1));

    let nulls = with(
        r#""stream":null,"stream_options":null,"max_tokens":null,"max_completion_tokens":null,"n":null,"tools":null,"user":null"#,
    );
    assert_eq!(parse(&nulls).unwrap().output_limit(), None);
    let same = with(r#""max_tokens":9,"max_completion_tokens":9"#);
    assert_eq!(parse(&same).unwrap().output_limit(), Some(9));
    let escaped = r#" {"m\u006fdel":"gpt\u002d4", "messages":[{"role":"user","content":null}]} "#;
    assert_eq!(parse(escaped).unwrap().model(), "gpt-4");
}

#[test]
fn bodies_that_are_no_requests() {
    for body in [
        "",
        " ",
        "nope",
        "{",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{}x",
        "{\"a\":01}",
        "{'a':1}",
        "{\"a\":\"\n\"}",
    ] {
        assert_eq!(refused(body), None, "{body}");
    }
    let limits = RequestLimits::default();
    assert_eq!(
        ChatRequest::parse(b"{\"model\":\"\xff\"}", &limits)
            .unwrap_err()
            .param,
        None
    );
    assert_eq!(
        ChatRequest::parse(b"\xEF\xBB\xBF{}", &limits)
            .unwrap_err()
            .param,
        None
    );
}

#[test]
fn wrong_members_are_refused_by_name() {
    let long = "x".repeat(257);
    let table = [
        (format!("{{{HI}}}"), "model"),
        (format!(r#"{{"model":null,{HI}}}"#), "model"),
        (format!(r#"{{"model":"",{HI}}}"#), "model"),
        (format!(r#"{{"model":7,{HI}}}"#), "model"),
        (format!(r#"{{"model":"{long}",{HI}}}"#), "model"),
        (format!(r#"{{"model":"a\nb",{HI}}}"#), "model"),
        (format!(r#"{{"model":"a\u0085",{HI}}}"#), "model"),
        (r#"{"model":"m"}"#.into(), "messages"),
        (r#"{"model":"m","messages":[]}"#.into(), "messages"),
        (r#"{"model":"m","messages":{}}"#.into(), "messages"),
        (r#"{"model":"m","messages":["hi"]}"#.into(), "messages"),
        (
            r#"{"model":"m","messages":[{"role":7}]}"#.into(),
            "messages",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":7}]}"#.into(),
            "messages",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":{}}]}"#.into(),
            "messages",
        ),
        (with(r#""stream":"true""#), "stream"),
        (with(r#""stream":1"#), "stream"),
        (with(r#""stream_options":[]"#), "stream_options"),
        (
            with(r#""stream":true,"stream_options":{"include_usage":1}"#),
            "stream_options.include_usage",
        ),
        (
            with(r#""stream":true,"stream_options":{"include_usage":true,"include_usage":false}"#),
            "stream_options.include_usage",
        ),
        (with(r#""max_tokens":0"#), "max_tokens"),
        (with(r#""max_tokens":-1"#), "max_tokens"),
        (with(r#""max_tokens":1.5"#), "max_tokens"),
        (with(r#""max_tokens":1e3"#), "max_tokens"),
        (with(r#""max_tokens":"7""#), "max_tokens"),
        (
            with(r#""max_completion_tokens":4294967296"#),
            "max_completion_tokens",
        ),
        (
            with(r#""max_completion_tokens":99999999999999999999999999"#),
            "max_completion_tokens",
        ),
        (
            with(r#""max_tokens":1,"max_completion_tokens":2"#),
            "max_tokens",
        ),
        (with(r#""n":0"#), "n"),
        (with(r#""n":129"#), "n"),
        (with(r#""n":-1"#), "n"),
        (with(r#""n":2.0"#), "n"),
        (with(r#""tools":{}"#), "tools"),
        (with(r#""functions":"f""#), "functions"),
        (with(r#""response_format":"json""#), "response_format"),
        (with(r#""modalities":"audio""#), "modalities"),
        (with(r#""audio":true"#), "audio"),
        (with(r#""prediction":[]"#), "prediction"),
        (with(r#""user":{}"#), "user"),
    ];
    for (body, param) in table {
        assert_eq!(refused(&body).as_deref(), Some(param), "{body}");
    }
}

/// A provider that reads the other of two members serves a request that was never priced.
#[test]
fn doubles_of_what_is_read_are_refused_in_any_spelling() {
    for (members, param) in [
        (r#""model":"dear""#, "model"),
        (r#""model":"m""#, "model"),
        (r#""m\u006fdel":"dear""#, "model"),
        (r#""Model":"dear""#, "model"),
        (r#""MODEL":"dear""#, "model"),
        (r#""max_tokens":1,"max_to\u212aens":100000"#, "max_tokens"),
        (r#""Max_Tokens":100000"#, "max_tokens"),
        (r#""me\u017fsages":[]"#, "messages"),
        (r#""N":100"#, "n"),
        (r#""n":1,"n":100"#, "n"),
        (r#""stream":true,"stream":null"#, "stream"),
    ] {
        assert_eq!(refused(&with(members)).as_deref(), Some(param), "{members}");
    }
    // What is not read is the provider's to judge, doubles too.
    let body = with(r#""seed":1,"seed":2,"Seed":3,"x":{"model":"a","model":"b"}"#);
    assert_eq!(parse(&body).unwrap().body(), body);
}

#[test]
fn depth_is_bounded_before_anything_is_read() {
    let nested = |depth: usize| {
        with(&format!(
            "\"x\":{}{}",
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        ))
    };
    assert!(parse(&nested(64)).is_ok());
    assert_eq!(refused(&nested(65)), None);
    let deep = format!("{{\"x\":{}", "[".repeat(1_000_000));
    assert!(parse(&deep).unwrap_err().message.contains("64 levels"));
    assert!(parse(&with(&format!("\"x\":\"{}\"", "[".repeat(1000)))).is_ok());
}

#[test]
fn counts_are_bounded() {
    let limits = RequestLimits {
        messages_max: 2,
        members_max: 3,
        ..RequestLimits::default()
    };
    let parse = |body: &str| ChatRequest::parse(body.as_bytes(), &limits).map(|r| r.messages());
    let messages = |count: usize| {
        let list = vec![r#"{"role":"user"}"#; count].join(",");
        format!(r#"{{"model":"m","messages":[{list}]}}"#)
    };
    assert_eq!(parse(&messages(2)), Ok(2));
    assert_eq!(
        parse(&messages(3)).unwrap_err().param.as_deref(),
        Some("messages")
    );
    assert!(parse(&with(r#""a":1"#)).is_ok());
    assert!(parse(&with(r#""a":1,"b":2"#)).is_err());
}

#[test]
fn refusals_do_not_repeat_what_was_sent() {
    for body in [
        r#"{"model":"SECRET","messages":"SECRET"}"#,
        r#"{"model":"SECRET"#,
        r#"{"SECRET":SECRET}"#,
        r#"{"model":"m","messages":[{"role":"user"}],"max_tokens":"SECRET"}"#,
        r#"{"model":"SECRET\u0000","messages":[]}"#,
    ] {
        let error = parse(body).unwrap_err();
        assert!(
            !format!("{error:?} {error}").contains("SECRET"),
            "{error:?}"
        );
    }
}

#[test]
fn output_that_cannot_be_counted_as_it_passes_is_named() {
    for (members, param) in [
        (r#""modalities":["text","audio"]"#, Some("modalities")),
        (r#""modalities":["text"]"#, None),
        (r#""modalities":null,"audio":{"voice":"a"}"#, None),
        (
            r#""prediction":{"type":"content","content":"x"}"#,
            Some("prediction"),
        ),
        (r#""reasoning_format":"hidden""#, Some("reasoning_format")),
        (r#""reasoning_format":"parsed""#, None),
        (r#""include_reasoning":false"#, Some("include_reasoning")),
        (r#""include_reasoning":true"#, None),
        (
            r#""reasoning":{"effort":"low","exclude":true}"#,
            Some("reasoning"),
        ),
        (r#""reasoning":{"effort":"low"}"#, None),
    ] {
        assert_eq!(
            parse(&with(members)).unwrap().unwatchable(),
            param,
            "{members}"
        );
    }
}

fn text(text: &str) -> Part<'_> {
    Part::Text(text.into())
}

#[test]
fn a_prompt_in_parts() {
    let body = r#"{"model":"m","messages":[
        {"role":"system","content":"Be \"brief\"."},
        {"role":"user","name":"ann","content":[
            {"type":"text","text":"what is this"},
            {"type":"image_url","image_url":{"url":"https://a.example/x.png","detail":"low"}},
            {"type":"image_url","image_url":"https://a.example/x.png"},
            {"type":"input_audio","input_audio":{"data":"AAAAAAAA","format":"wav"}},
            {"type":"file","file":{"file_data":"data:application/pdf;base64,AAAAAA==","filename":"a.pdf"}},
            {"type":"file","file":{"file_id":"file-1"}},
            {"type":"new_thing","x":1}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
        {"role":"tool","tool_call_id":"call_1","content":"sunny"},
        {"role":"narrator","content":""}],
        "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}},{"type":"web_search"}],
        "functions":[{"name":"g"}],
        "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{}}},
        "temperature":1}"#;
    let request = parse(body).unwrap();
    let expected = [
        Part::Message,
        text("Be \"brief\"."),
        Part::Message,
        Part::Name("ann".into()),
        text("what is this"),
        Part::Image {
            size: None,
            detail: Detail::Low,
        },
        Part::Image {
            size: None,
            detail: Detail::Auto,
        },
        Part::Audio {
            bytes: 6,
            millis: None,
        },
        Part::File { bytes: 4 },
        Part::File { bytes: usize::MAX },
        text(r#"{"type":"new_thing","x":1}"#),
        Part::Message,
        text("f"),
        text(r#"{"a":1}"#),
        Part::Message,
        text("call_1"),
        text("sunny"),
        Part::Message,
        text("narrator"),
        Part::Tool {
            name: "f".into(),
            description: "d".into(),
            parameters: r#"{"type":"object"}"#,
        },
        text(r#"{"type":"web_search"}"#),
        Part::Tool {
            name: "g".into(),
            description: "".into(),
            parameters: "",
        },
        Part::Schema(r#"{"name":"s","schema":{}}"#),
    ];
    assert_eq!(request.parts(), expected);
}

#[test]
fn images_are_measured() {
    // The header of a PNG of 640 by 480 pixels.
    let png = "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAYAAAA=";
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{png}"}}}}]}}]}}"#
    );
    let parts = parse(&body).unwrap().parts();
    assert_eq!(
        parts[1],
        Part::Image {
            size: Some((640, 480)),
            detail: Detail::Auto
        }
    );
}

/// Text hidden in a double of a member is counted too: which one is read is not known.
#[test]
fn doubles_inside_messages_are_counted() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}"#;
    assert_eq!(
        parse(body).unwrap().parts(),
        [Part::Message, text("a"), text("b")]
    );
}

#[test]
fn texts_without_escapes_are_borrowed() {
    let body = with("");
    let request = parse(&body).unwrap();
    match &request.parts()[..] {
        [Part::Message, Part::Text(std::borrow::Cow::Borrowed("hi"))] => {}
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn nothing_panics_on_arbitrary_bytes(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChatRequest::parse(&body, &RequestLimits::default());
    }

    #[test]
    fn nothing_panics_on_json_of_any_shape(
        messages in "[\\[\\]{}:,\"a-z0-9]{0,24}",
        content in prop::sample::select(vec![
            "7", "null", "\"\\ud83d\"", "[]", "[7]", "[[]]", "[null]", "[{}]", "[{\"text\":7}]",
            "[{\"thinking\":[7,{\"text\":\"x\"}]}]", "[{\"image_url\":7}]", "[{\"input_audio\":[]}]",
            "[{\"file\":null}]", "[{\"video_url\":{\"url\":\"data:,\"}}]", "[{\"file\":{\"file_data\":\",\"}}]",
        ]),
        tools in prop::sample::select(vec![
            "null", "[]", "[7]", "[null]", "[{\"function\":7}]", "[{\"function\":{\"name\":7}}]", "[[]]",
        ]),
    ) {
        for messages in [&messages, &format!("[{{\"content\":{content},\"tool_calls\":{content},\"function_call\":{content}}}]")] {
            let body = format!(
                r#"{{"model":"m","messages":{messages},"tools":{tools},"functions":{tools}}}"#
            );
            if let Ok(request) = parse(&body) {
                let _ = request.parts();
            }
        }
    }
}
