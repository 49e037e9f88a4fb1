//! Prompts: the cookbook's example, the buckets, and the bound that no request exceeds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokens::{Detail, Encoding, Factor, ImageRule, Part, PromptRules, Tokenizer, Usage};

fn rules(encoding: Encoding, factor: u32, image: ImageRule) -> PromptRules {
    PromptRules::new(
        Tokenizer::new(encoding, Factor::new(factor).unwrap()),
        image,
    )
}

fn text(text: &str) -> Part<'_> {
    Part::Text(Cow::Borrowed(text))
}

fn audio(bytes: usize, millis: Option<u64>) -> Part<'static> {
    Part::Audio { bytes, millis }
}

#[test]
fn audio_counts_by_its_length_and_never_more_than_the_thinnest_sound() {
    let openai = rules(Encoding::O200kBase, 1000, ImageRule::Gpt4o);
    let gemini = openai.with_audio_per_second(tokens::GEMINI_AUDIO_TOKENS_PER_SECOND);
    let minute = [audio(960_000, Some(60_000))];
    // OpenAI's guide: a token for each 100 ms. Google's: 32 tokens a second.
    assert_eq!(openai.count(&minute).audio_prompt, 600);
    assert_eq!(gemini.count(&minute).audio_prompt, 1920);
    let lie = [audio(1000, Some(u64::MAX))];
    assert_eq!(openai.count(&lie).audio_prompt, 10);
    assert_eq!(gemini.count(&lie).audio_prompt, 32);
}

#[test]
fn the_cookbooks_messages() {
    // "How to count tokens with tiktoken", part 6: 129 tokens for gpt-4, 124 for gpt-4o.
    let messages = [
        (
            None,
            "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
        ),
        (
            Some("example_user"),
            "New synergies will help drive top-line growth.",
        ),
        (
            Some("example_assistant"),
            "Things working well together will increase revenue.",
        ),
        (
            Some("example_user"),
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        (
            Some("example_assistant"),
            "Let's talk later when we're less busy about how to do better.",
        ),
        (
            None,
            "This late pivot means we don't have time to boil the ocean for the client deliverable.",
        ),
    ];
    let mut parts = Vec::new();
    for (name, content) in messages {
        parts.push(Part::Message);
        parts.extend(name.map(|name| Part::Name(Cow::Borrowed(name))));
        parts.push(text(content));
    }
    for (encoding, tokens) in [(Encoding::Cl100kBase, 129), (Encoding::O200kBase, 124)] {
        let usage = rules(encoding, 1000, ImageRule::Gpt4o).count(&parts);
        assert_eq!(
            usage,
            Usage {
                prompt: tokens,
                ..Usage::default()
            },
            "{encoding}"
        );
    }
}

#[test]
fn every_part_has_its_bucket() {
    let rules = rules(Encoding::O200kBase, 1000, ImageRule::Gpt4o);
    let empty = rules.count(&[]).prompt;
    assert_eq!(empty, 3);
    let image = Part::Image {
        size: Some((512, 512)),
        detail: Detail::Auto,
    };
    assert_eq!(rules.count(&[image]).prompt, empty + 255);
    let image = Part::Image {
        size: None,
        detail: Detail::Low,
    };
    assert_eq!(rules.count(&[image]).prompt, empty + 85);
    let unknown = Part::Image {
        size: None,
        detail: Detail::High,
    };
    assert_eq!(rules.count(&[unknown]).prompt, empty + 1445);
    assert_eq!(rules.count(&[audio(1001, None)]).audio_prompt, 11);
    assert_eq!(rules.count(&[audio(1001, None)]).prompt, empty);
    assert_eq!(rules.count(&[Part::File { bytes: 10 }]).prompt, empty + 10);
    assert_eq!(rules.count(&[Part::Schema("{}")]).prompt, empty + 1);
    let parts = [Part::Message, text("Hello"), Part::Schema("{}")];
    assert_eq!(PromptRules::text_bytes(&parts), 7);
}

#[test]
fn what_the_provider_says_about_tools_is_counted_and_in_the_bound() {
    let plain = rules(Encoding::O200kBase, 1000, ImageRule::Claude);
    let told = plain.with_tool_instructions(tokens::CLAUDE_TOOL_TOKENS);
    let tool = [Part::Tool {
        name: "f".into(),
        description: "".into(),
        parameters: "{}",
    }];
    let count = |rules: PromptRules, parts: &[Part<'_>]| rules.count(parts).prompt;
    assert_eq!(count(told, &tool), count(plain, &tool) + 346);
    assert_eq!(count(told, &[text("Hi")]), count(plain, &[text("Hi")]));
    // Its definition is a few bytes, and what it costs is not.
    assert!(count(told, &tool) > plain.upper_bound(60, 0));
    assert!(count(told, &tool) <= told.upper_bound(60, 0));
}

#[test]
fn the_factor_applies_to_text_and_is_rounded_once() {
    let rules = rules(Encoding::O200kBase, 1500, ImageRule::Gpt4o);
    let parts = [Part::Message, text("one"), text(" two"), text(" three")];
    assert_eq!(rules.count(&parts).prompt, 5 + 3 + 4);
}

#[test]
fn no_prompt_counts_above_the_context_window() {
    let rules = rules(Encoding::O200kBase, 1000, ImageRule::Gpt4o).with_context_window(100);
    let parts = [Part::File { bytes: usize::MAX }, audio(5000, None)];
    let usage = rules.count(&parts);
    assert_eq!((usage.prompt, usage.audio_prompt), (50, 50));
    assert_eq!(rules.upper_bound(usize::MAX, usize::MAX), 100);
    let parts = [
        Part::File { bytes: usize::MAX },
        Part::File { bytes: usize::MAX },
    ];
    assert_eq!(
        self::rules(Encoding::O200kBase, 4000, ImageRule::Gpt4o)
            .count(&parts)
            .prompt,
        u64::MAX
    );
}

#[test]
fn a_schema_of_bare_numbers_counts_below_its_bound() {
    // No rule is published for them, and two bytes each leave no room for a textual item's three.
    let schema = format!(r#"{{"enum":[{}]}}"#, ["7"; 2000].join(","));
    let body = format!(r#"{{"functions":[{{"name":"f","parameters":{schema}}}]}}"#);
    let tool = Part::Tool {
        name: "f".into(),
        description: "".into(),
        parameters: &schema,
    };
    for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
        let rules = rules(encoding, 1000, ImageRule::Gpt4o);
        let count = rules.count(std::slice::from_ref(&tool)).prompt;
        assert!(
            (4000..=rules.upper_bound(body.len(), 0)).contains(&count),
            "{count}"
        );
    }
}

/// A request body and, as `dialect` would find them, the parts in it.
#[derive(Clone, Debug)]
struct Request {
    body: String,
    parts: Vec<Part<'static>>,
    images: usize,
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z ]{0,20}",
        "[0-9]{0,12}",
        "[日本語\u{e01}-\u{e30}😀]{0,8}",
        "[ -~\n\t]{0,16}",
        any::<String>(),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({})),
        Just(json!(true)),
        Just(json!(7)),
        words().prop_map(|kind| json!({"type": kind})),
        prop::collection::vec("[a-z]{0,2}", 0..60).prop_map(|values| json!({"enum": values})),
        prop::collection::vec(0..9_u8, 0..60).prop_map(|values| json!({"enum": values})),
        words().prop_map(|description| json!({"type": "string", "description": description})),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::btree_map("[a-z]{0,2}", inner.clone(), 0..5)
                .prop_map(|properties| json!({"properties": properties})),
            inner
                .clone()
                .prop_map(|items| json!({"type": "array", "items": items})),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|any| json!({"anyOf": any})),
            prop::collection::btree_map("[a-z]{0,2}", inner, 0..3)
                .prop_map(|defs| json!({"$defs": defs})),
        ]
    })
}

fn message() -> impl Strategy<Value = (Value, Vec<Part<'static>>)> {
    let named = prop::option::of(words());
    let image = prop_oneof![Just(None), (1..5000_u32, 1..5000_u32).prop_map(Some)];
    let sound = prop::option::of(0..3000_usize);
    (words(), named, prop::option::of(image), sound).prop_map(|(content, name, image, sound)| {
        let mut parts = vec![Part::Message, Part::Text(content.clone().into())];
        let mut body = vec![json!({"type": "text", "text": content})];
        if let Some(size) = image {
            parts.push(Part::Image {
                size,
                detail: Detail::Auto,
            });
            body.push(json!({"type": "image_url", "image_url": {"url": "//x"}}));
        }
        if let Some(bytes) = sound {
            parts.push(audio(bytes, None));
            let data = "A".repeat(bytes.div_ceil(3) * 4);
            body.push(json!({"type": "input_audio", "input_audio": {"data": data}}));
        }
        let mut message = json!({"role": "user", "content": body});
        if let Some(name) = name {
            message["name"] = json!(name);
            parts.push(Part::Name(name.into()));
        }
        (message, parts)
    })
}

/// Tools as the retired `functions` field has them, which wraps them in the fewest bytes.
fn function() -> impl Strategy<Value = (Value, Part<'static>)> {
    ("[a-z]{0,3}", words(), prop::option::of(schema())).prop_map(|(name, description, schema)| {
        let mut body = json!({"name": name});
        if !description.is_empty() {
            body["description"] = json!(description);
        }
        let parameters: &'static str = match schema {
            Some(schema) => {
                let text = schema.to_string();
                body["parameters"] = schema;
                text.leak()
            }
            None => "",
        };
        let part = Part::Tool {
            name: name.into(),
            description: description.into(),
            parameters,
        };
        (body, part)
    })
}

fn request() -> impl Strategy<Value = Request> {
    let messages = prop::collection::vec(message(), 0..6);
    let functions = prop::collection::vec(function(), 0..5);
    (messages, functions).prop_map(|(messages, functions)| {
        let (messages, parts): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let mut parts = parts.concat();
        let (functions, tools): (Vec<_>, Vec<_>) = functions.into_iter().unzip();
        parts.extend(tools);
        let body = if functions.is_empty() {
            json!({"messages": messages})
        } else {
            json!({"messages": messages, "functions": functions})
        };
        let images = parts
            .iter()
            .filter(|part| matches!(part, Part::Image { .. }))
            .count();
        Request {
            body: body.to_string(),
            parts,
            images,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_request_counts_above_its_bound(request in request(), factor in 250..=4000_u32, rule in 0..12_usize) {
        for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
            let rules = rules(encoding, factor, ImageRule::ALL[rule]);
            let count = rules.count(&request.parts).total();
            let bound = rules.upper_bound(request.body.len(), request.images);
            prop_assert!(count <= bound, "{} > {}: {}", count, bound, request.body);
        }
    }
}
