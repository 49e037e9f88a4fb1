//! Encoding: what changes on the way upstream, byte for byte, and that nothing else does.

use dialect::{
    ChatRequest, Dialect, Edit, Features, Quirks, RequestError, RequestLimits, WireRequest,
};
use proptest::prelude::*;
use serde_json::Value;

const EDIT: Edit<'static> = Edit {
    upstream_model: "up",
    output_limit: None,
    output_tokens_max: 4096,
    features: &Features::PLAIN,
    ask_stream_usage: true,
};

fn encode(body: &str, edit: &Edit<'_>, quirks: &str) -> Result<WireRequest, RequestError> {
    let request = ChatRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
    Dialect::OpenAi.encode(&request, edit, &toml::from_str::<Quirks>(quirks).unwrap())
}

/// What a request with `members` becomes, without what every request has.
fn check(members: &str, edit: &Edit<'_>, quirks: &str, expected: &str) {
    let request = format!(r#"{{"model":"m","messages":[{{}}]{members}}}"#);
    let wire = encode(&request, edit, quirks).unwrap();
    let body = std::str::from_utf8(&wire.body).unwrap();
    serde_json::from_str::<Value>(body).expect(body);
    let common = format!(r#"{{"model":"{}","messages":[{{}}]"#, edit.upstream_model);
    let rest = body
        .strip_prefix(&common)
        .expect(body)
        .strip_suffix('}')
        .unwrap();
    assert_eq!(rest, expected, "{members} with {quirks}");
}

#[test]
fn only_the_model_changes_and_every_other_byte_stays() {
    let body = "\n{ \"temperature\" : 1.10 ,\"model\":\"m\", \"x\":1,\"x\":1E2, \"messages\":[ {\"role\":\"user\",\"content\":\"\\u00e9\\/é\"} ] }\r\n";
    let wire = encode(
        body,
        &Edit {
            upstream_model: "a\"b",
            ..EDIT
        },
        "",
    )
    .unwrap();
    assert_eq!(wire.body, body.replace("\"m\"", "\"a\\\"b\""));
    assert_eq!(
        (wire.path.as_str(), wire.headers.len()),
        ("/chat/completions", 0)
    );
}

#[test]
fn limits_are_written_lowered_or_left() {
    let limit = |limit| Edit {
        output_limit: Some(limit),
        ..EDIT
    };
    check("", &limit(9), "", r#","max_tokens":9"#);
    check(
        "",
        &limit(9),
        "output_limit_field='max_completion_tokens'",
        r#","max_completion_tokens":9"#,
    );
    check(
        r#","max_completion_tokens": 20"#,
        &limit(9),
        "",
        r#","max_completion_tokens": 9"#,
    );
    check(
        r#","max_tokens":20,"a":1"#,
        &limit(9),
        "output_limit_field='max_completion_tokens'",
        r#","max_tokens":9,"a":1"#,
    );
    check(r#","max_tokens":5"#, &limit(9), "", r#","max_tokens":5"#);
    check(r#","max_tokens":9"#, &limit(9), "", r#","max_tokens":9"#);
    check(r#","max_tokens":20"#, &EDIT, "", r#","max_tokens":20"#);
    check(
        r#","max_tokens":20,"max_completion_tokens":20"#,
        &limit(9),
        "",
        r#","max_tokens":9,"max_completion_tokens":9"#,
    );
    check(r#","max_tokens":null"#, &limit(9), "", r#","max_tokens":9"#);
    check(r#","max_tokens":null"#, &EDIT, "", r#","max_tokens":null"#);
    check(
        r#","max_tokens":null,"max_completion_tokens":20"#,
        &limit(9),
        "",
        r#","max_completion_tokens":9"#,
    );
}

/// What was priced must arrive, whatever a provider's file does with the client's own member.
#[test]
fn a_limit_survives_renaming_and_dropping() {
    let limit = Edit {
        output_limit: Some(9),
        ..EDIT
    };
    let openai =
        "rename={max_tokens='max_completion_tokens'}\noutput_limit_field='max_completion_tokens'";
    check("", &limit, openai, r#","max_completion_tokens":9"#);
    check(
        r#","max_tokens":20"#,
        &limit,
        openai,
        r#","max_completion_tokens":9"#,
    );
    check(
        r#","max_tokens":20,"max_completion_tokens":20"#,
        &limit,
        openai,
        r#","max_completion_tokens":9"#,
    );
    check(
        r#","max_tokens":null,"max_completion_tokens":20"#,
        &limit,
        openai,
        r#","max_completion_tokens":9"#,
    );
    check(
        r#","max_completion_tokens":null,"max_tokens":20"#,
        &limit,
        openai,
        r#","max_completion_tokens":9"#,
    );
    let dropping = "drop=['max_completion_tokens']";
    check(
        r#","max_completion_tokens":20"#,
        &limit,
        dropping,
        r#","max_tokens":9"#,
    );
    check(
        r#","max_completion_tokens":5"#,
        &EDIT,
        dropping,
        r#","max_tokens":5"#,
    );
}

/// A provider's own name for the limit, sent by a client, would go around the one that was priced.
#[test]
fn the_providers_name_of_the_limit_is_no_way_around_it() {
    let own = "rename={max_tokens='max_new_tokens'}";
    let limit = Edit {
        output_limit: Some(9),
        ..EDIT
    };
    check("", &limit, own, r#","max_new_tokens":9"#);
    check(r#","max_tokens":20"#, &limit, own, r#","max_new_tokens":9"#);
    let body = r#"{"model":"m","messages":[{}],"max_new_tokens":100000,"max_tokens":5}"#;
    let error = encode(body, &limit, own).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("max_new_tokens"));
}

#[test]
fn usage_is_asked_for_in_streams_only() {
    let asked = r#","stream_options":{"include_usage":true}"#;
    check("", &EDIT, "", "");
    check(r#","stream":false"#, &EDIT, "", r#","stream":false"#);
    check(
        r#","stream":true"#,
        &EDIT,
        "",
        &format!(r#","stream":true{asked}"#),
    );
    for how in ["always", "never"] {
        check(
            r#","stream":true"#,
            &EDIT,
            &format!("usage_how='{how}'"),
            r#","stream":true"#,
        );
    }
    check(
        r#","stream":true"#,
        &Edit {
            ask_stream_usage: false,
            ..EDIT
        },
        "",
        r#","stream":true"#,
    );
    let merged = |options: &str, expected: &str| {
        check(
            &format!(r#","stream":true,"stream_options":{options}"#),
            &EDIT,
            "",
            &format!(r#","stream":true,"stream_options":{expected}"#),
        );
    };
    merged("null", r#"{"include_usage":true}"#);
    merged("{}", r#"{"include_usage":true}"#);
    merged("{ }", r#"{"include_usage":true }"#);
    merged(r#"{ "a":1.10 }"#, r#"{ "a":1.10,"include_usage":true }"#);
    merged(
        r#"{"include_usage":false,"b":2}"#,
        r#"{"include_usage":true,"b":2}"#,
    );
    merged(r#"{"include_usage" : null}"#, r#"{"include_usage" : true}"#);
    merged(
        r#"{"include_us\u0061ge": true}"#,
        r#"{"include_us\u0061ge": true}"#,
    );
}

#[test]
fn quirks_are_applied() {
    check(
        r#","a":1,"b":2,"c":3"#,
        &EDIT,
        "drop=['a','c']",
        r#","b":2"#,
    );
    check(r#", "a" : 1 , "b":2"#, &EDIT, "drop=['a']", r#" , "b":2"#);
    check(r#","a":1,"a":2"#, &EDIT, "drop=['a']", "");
    check(r#","a":1"#, &EDIT, "rename={a='b'}", r#","b":1"#);
    check(r#","a":1,"b":2"#, &EDIT, "rename={a='b'}", r#","b":2"#);
    check(
        r#","a":1,"c":2"#,
        &EDIT,
        "rename={a='b',c='b'}",
        r#","b":1"#,
    );
    check("", &EDIT, "set={a=[1,true,'x']}", r#","a":[1,true,"x"]"#);
    check(r#","a":1"#, &EDIT, "set={a={b=2}}", r#","a":{"b":2}"#);
    check(
        r#","t":1.10"#,
        &EDIT,
        "clamp={t={min=0,max=1.5}}",
        r#","t":1.10"#,
    );
    check(
        r#","t":2"#,
        &EDIT,
        "clamp={t={min=0,max=1.5}}",
        r#","t":1.5"#,
    );
    check(r#","t":-0.1"#, &EDIT, "clamp={t={min=0}}", r#","t":0"#);
    check(
        r#","t":null,"u":"9""#,
        &EDIT,
        "clamp={t={max=1},u={max=1}}",
        r#","t":null,"u":"9""#,
    );
}

#[test]
fn members_in_front_of_all_others_can_go() {
    let body = r#"{"a":1,"b":2,"model":"m","messages":[{}],"c":3}"#;
    let wire = encode(body, &EDIT, "drop=['a','b','c']").unwrap();
    assert_eq!(wire.body, r#"{"model":"up","messages":[{}]}"#);
    let wire = encode(
        body,
        &EDIT,
        "drop=['a','model','messages','b','c']\nset={d=1}",
    )
    .unwrap();
    assert_eq!(wire.body, r#"{"model":"up","d":1}"#);
}

#[test]
fn what_a_provider_does_not_support_is_refused_by_name() {
    let refuse = "unsupported=['logprobs']";
    let error = encode(
        r#"{"model":"m","messages":[{}],"logprobs":true}"#,
        &EDIT,
        refuse,
    )
    .unwrap_err();
    assert_eq!(error.param.as_deref(), Some("logprobs"));
    // Null says that it is not wanted.
    check(r#","logprobs":null,"a":1"#, &EDIT, refuse, r#","a":1"#);
}

#[test]
fn the_path_can_name_the_model() {
    let edit = Edit {
        upstream_model: "org/a b:é",
        ..EDIT
    };
    let body = r#"{"model":"m","messages":[{}]}"#;
    let wire = encode(
        body,
        &edit,
        "path='/v2/{model}/chat?v=1'\nheaders={x-a='b'}",
    )
    .unwrap();
    assert_eq!(wire.path, "/v2/org%2Fa%20b%3A%C3%A9/chat?v=1");
    assert_eq!(wire.headers, [("x-a".to_owned(), "b".to_owned())]);
}

#[test]
fn the_whole_surface_in_one_request() {
    let full = r#"{
  "model": "acme-large",
  "messages": [{"role": "user", "content": "h\u00e9"}],
  "temperature": 1.10, "top_p": 2, "seed": 12345678901234567890,
  "logit_bias": {"50256": -100},
  "stream": true, "stream_options": {"include_obfuscation": false},
  "max_tokens": 9000, "logprobs": null, "x_unknown": [1.0, 1e2, null]
}"#;
    let quirks = "
        rename = { max_tokens = 'max_completion_tokens', seed = 'random_seed' }
        drop = ['logit_bias']
        unsupported = ['logprobs']
        set = { safe_prompt = false }
        clamp = { top_p = { max = 1 } }
        path = '/v1/{model}/chat'
        headers = { x-title = 'Tollway' }
        output_limit_field = 'max_completion_tokens'
    ";
    let edit = Edit {
        upstream_model: "large-2026-01",
        output_limit: Some(4096),
        ..EDIT
    };
    let wire = encode(full, &edit, quirks).unwrap();
    let body = String::from_utf8(wire.body.to_vec()).unwrap();
    insta::assert_snapshot!(format!(
        "{full}\n---- quirks ----\n{quirks}\n---- upstream ----\nPOST {}\n{:?}\n\n{body}",
        wire.path, wire.headers
    ));
}

/// Members of any name and value, as the text of a JSON object has them.
fn members() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = prop_oneof![
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(String::from("\"\\u00e9\\ud83d\\/\"")),
        "(null|true|false)",
        "\\{ ?(\"[a-z]{1,3}\" ?: ?[1-9]{1,3})?\\}",
        "\\[ ?[1-9]{1,3}( ?, ?[1-9]{1,3}){0,3}\\]",
    ];
    let key = prop_oneof!["x_[a-z]{0,4}", "x_[\u{e9}😀\"\\\\]{1,3}"];
    prop::collection::vec((key, value), 0..8)
}

proptest! {
    #[test]
    fn unknown_members_travel_byte_for_byte(members in members(), space in "[ \n\t]{0,2}", at in 0_usize..9) {
        let mut list: Vec<String> = members
            .iter()
            .map(|(key, value)| format!("{}{space}:{space}{value}", serde_json::to_string(key).unwrap()))
            .collect();
        list.insert(at.min(list.len()), String::from("\"model\":\"m\""));
        list.push(String::from("\"messages\":[{}]"));
        list.push(String::from("\"stream\":true"));
        let body = format!("{space}{{{space}{}{space}}}{space}", list.join(&format!("{space},{space}")));
        let edit = Edit { output_limit: Some(7), ..EDIT };
        let wire = encode(&body, &edit, "").unwrap();
        let expected = body
            .replace("\"model\":\"m\"", "\"model\":\"up\"")
            .replace(
                "\"stream\":true",
                "\"stream\":true,\"max_tokens\":7,\"stream_options\":{\"include_usage\":true}",
            );
        prop_assert_eq!(std::str::from_utf8(&wire.body).unwrap(), expected);
    }

    #[test]
    fn any_quirk_leaves_sound_json(
        members in members(),
        names in prop::collection::vec("(x_[a-z]?|model|messages|stream|max_tokens)", 4),
        limit in prop::option::of(1_u64..100),
    ) {
        let list: String = members
            .iter()
            .map(|(key, value)| format!("{}:{value},", serde_json::to_string(key).unwrap()))
            .collect();
        let body = format!(r#"{{{list}"max_tokens":50,"model":"m","messages":[{{}}],"stream":true}}"#);
        let quirks = format!(
            "drop=['{}']\nrename={{ {} = 'x_{}' }}\nset={{ {} = 1 }}",
            names[0], names[1], names[2], names[3]
        );
        let edit = Edit { output_limit: limit, ..EDIT };
        let wire = encode(&body, &edit, &quirks).unwrap();
        prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&wire.body).is_ok());
    }
}
