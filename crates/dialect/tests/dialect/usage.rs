//! Usage objects, sound and unsound, under each convention, alone and over the chunks of a stream.

use std::sync::Arc;

use bytes::Bytes;
use dialect::{Delta, Dialect, Ending, Quirks, SseEvent, UsageFault};
use proptest::prelude::*;
use tokens::Usage;

fn quirks(toml: &str) -> Quirks {
    toml::from_str(toml).unwrap()
}

/// What a plain answer with this usage object is found to have used.
fn read(usage: &str, quirks: &Quirks) -> Option<Result<Usage, UsageFault>> {
    let body = format!(r#"{{"choices":[],"usage":{usage}}}"#);
    Dialect::OpenAi
        .decode(Bytes::from(body), quirks, 0)
        .unwrap()
        .usage()
}

fn sound(usage: &str, quirks: &Quirks) -> Usage {
    read(usage, quirks)
        .expect("there is usage")
        .expect("it is sound")
}

fn fault(usage: &str) -> UsageFault {
    read(usage, &Quirks::default())
        .expect("there is usage")
        .expect_err(usage)
}

#[test]
fn the_shapes_of_the_providers() {
    let inside = Quirks::default();
    let beside = quirks("reasoning = 'beside'");
    let table: &[(&str, &Quirks, Usage)] = &[
        // OpenAI: parts inside their totals.
        (
            r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
                "prompt_tokens_details":{"cached_tokens":60,"audio_tokens":10},
                "completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":5,
                "accepted_prediction_tokens":3,"rejected_prediction_tokens":4}}"#,
            &inside,
            Usage {
                prompt: 30,
                cached_prompt: 60,
                audio_prompt: 10,
                completion: 25,
                reasoning: 20,
                audio_completion: 5,
                ..Usage::default()
            },
        ),
        // DeepSeek: its own names beside OpenAI's, or alone as it used to be.
        (
            r#"{"prompt_tokens":339,"completion_tokens":83,"total_tokens":422,"prompt_tokens_details":{"cached_tokens":320},"completion_tokens_details":{"reasoning_tokens":39},"prompt_cache_hit_tokens":320,"prompt_cache_miss_tokens":19}"#,
            &inside,
            Usage {
                prompt: 19,
                cached_prompt: 320,
                completion: 44,
                reasoning: 39,
                ..Usage::default()
            },
        ),
        (
            r#"{"prompt_tokens":20,"completion_tokens":3,"total_tokens":23,"prompt_cache_hit_tokens":15,"prompt_cache_miss_tokens":5}"#,
            &inside,
            Usage {
                prompt: 5,
                cached_prompt: 15,
                completion: 3,
                ..Usage::default()
            },
        ),
        // xAI: reasoning beside the completion, inside the total.
        (
            r#"{"prompt_tokens":12,"completion_tokens":2,"total_tokens":354,"prompt_tokens_details":{"text_tokens":12,"audio_tokens":0,"image_tokens":0,"cached_tokens":11},"completion_tokens_details":{"reasoning_tokens":340}}"#,
            &beside,
            Usage {
                prompt: 1,
                cached_prompt: 11,
                completion: 2,
                reasoning: 340,
                ..Usage::default()
            },
        ),
        // Gemini's OpenAI endpoint: thinking shows in the total alone.
        (
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":75}"#,
            &beside,
            Usage {
                prompt: 10,
                completion: 5,
                reasoning: 60,
                ..Usage::default()
            },
        ),
        // Perplexity's deep research: beside the completion and beside the total.
        (
            r#"{"prompt_tokens":33,"completion_tokens":7163,"total_tokens":7196,"citation_tokens":20016,"num_search_queries":18,"reasoning_tokens":73997}"#,
            &beside,
            Usage {
                prompt: 33,
                completion: 7163,
                reasoning: 73997,
                searches: 18,
                ..Usage::default()
            },
        ),
        // Moonshot: cached tokens at the top.
        (
            r#"{"prompt_tokens":20,"completion_tokens":30,"total_tokens":50,"cached_tokens":10,"completion_tokens_details":{"reasoning_tokens":22}}"#,
            &inside,
            Usage {
                prompt: 10,
                cached_prompt: 10,
                completion: 8,
                reasoning: 22,
                ..Usage::default()
            },
        ),
        // Cache writes, by the names of OpenRouter and of those who keep Anthropic's.
        (
            r#"{"prompt_tokens":20,"completion_tokens":1,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":6}}"#,
            &inside,
            Usage {
                prompt: 10,
                cached_prompt: 4,
                cache_write_5m: 6,
                completion: 1,
                ..Usage::default()
            },
        ),
        (
            r#"{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11,"cache_read_input_tokens":4,"cache_creation_input_tokens":6}"#,
            &quirks("cached = 'beside'"),
            Usage {
                prompt: 10,
                cached_prompt: 4,
                cache_write_5m: 6,
                completion: 1,
                ..Usage::default()
            },
        ),
        // A cached image is both: no token twice.
        (
            r#"{"prompt_tokens":100,"completion_tokens":1,"total_tokens":101,"prompt_tokens_details":{"cached_tokens":80,"image_tokens":90}}"#,
            &inside,
            Usage {
                prompt: 0,
                cached_prompt: 80,
                image_prompt: 20,
                completion: 1,
                ..Usage::default()
            },
        ),
    ];
    for (json, quirks, expected) in table {
        assert_eq!(sound(json, quirks), *expected, "{json}");
    }
}

#[test]
fn zero_is_zero_and_missing_is_missing() {
    let inside = Quirks::default();
    assert_eq!(
        read(
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
            &inside
        ),
        Some(Ok(Usage::default()))
    );
    for nothing in [
        "null",
        "{}",
        r#"{"prompt_tokens":null,"completion_tokens":null}"#,
        r#"{"cost":1}"#,
    ] {
        assert_eq!(read(nothing, &inside), None, "{nothing}");
    }
    // What is missing follows from the total, or is a fault.
    let five = Usage {
        prompt: 5,
        ..Usage::default()
    };
    assert_eq!(
        sound(r#"{"prompt_tokens":5,"total_tokens":5}"#, &inside),
        five
    );
    assert_eq!(
        sound(r#"{"prompt_tokens":5,"completion_tokens":0}"#, &inside),
        five
    );
    assert_eq!(
        fault(r#"{"prompt_tokens":5}"#),
        UsageFault::Missing {
            field: "completion_tokens"
        }
    );
    assert_eq!(
        fault(r#"{"total_tokens":5}"#),
        UsageFault::Missing {
            field: "prompt_tokens"
        }
    );
}

#[test]
fn what_is_not_a_count_is_a_fault() {
    use UsageFault::{NotACount, NotAnObject, PartExceedsTotal, TooLarge, TotalDisagrees};
    let prompt = "prompt_tokens";
    for (json, expected) in [
        ("5", NotAnObject),
        ("\"many\"", NotAnObject),
        ("[]", NotAnObject),
        (
            r#"{"prompt_tokens_details":[],"prompt_tokens":1}"#,
            NotAnObject,
        ),
        (
            r#"{"prompt_tokens":-1,"completion_tokens":1}"#,
            NotACount { field: prompt },
        ),
        (
            r#"{"prompt_tokens":"1","completion_tokens":1}"#,
            NotACount { field: prompt },
        ),
        (
            r#"{"prompt_tokens":1.5,"completion_tokens":1}"#,
            NotACount { field: prompt },
        ),
        (
            r#"{"prompt_tokens":1e18,"completion_tokens":1}"#,
            NotACount { field: prompt },
        ),
        (
            r#"{"prompt_tokens":{},"completion_tokens":1}"#,
            NotACount { field: prompt },
        ),
        (
            r#"{"prompt_tokens":4294967296,"completion_tokens":1}"#,
            TooLarge { field: prompt },
        ),
        (
            r#"{"prompt_tokens":1000000000000000000000000,"completion_tokens":1}"#,
            TooLarge { field: prompt },
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":6}}"#,
            PartExceedsTotal {
                field: "cached_tokens",
            },
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10,"prompt_tokens_details":{"audio_tokens":6}}"#,
            PartExceedsTotal {
                field: "prompt audio_tokens",
            },
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10,"completion_tokens_details":{"reasoning_tokens":6}}"#,
            PartExceedsTotal {
                field: "reasoning_tokens",
            },
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":5,"completion_tokens_details":{"rejected_prediction_tokens":6}}"#,
            PartExceedsTotal {
                field: "prediction tokens",
            },
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":5,"total_tokens":9}"#,
            TotalDisagrees,
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":5,"total_tokens":11}"#,
            TotalDisagrees,
        ),
        (r#"{"prompt_tokens":5,"total_tokens":4}"#, TotalDisagrees),
    ] {
        assert_eq!(fault(json), expected, "{json}");
    }
}

/// The usage after each of the chunks.
fn stream(chunks: &[&str], quirks: Quirks) -> Vec<Option<Result<Usage, UsageFault>>> {
    let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks), 0);
    let mut out = Vec::new();
    let after = chunks.iter().map(|chunk| {
        decoder
            .push(SseEvent::data(Bytes::from((*chunk).to_owned())), &mut out)
            .unwrap();
        decoder.usage()
    });
    after.collect()
}

fn plain(prompt: u64, completion: u64) -> Option<Result<Usage, UsageFault>> {
    Some(Ok(Usage {
        prompt,
        completion,
        ..Usage::default()
    }))
}

#[test]
fn p_usage_repeated_is_the_last_and_never_the_sum() {
    let chunks = [
        r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#,
        r#"{"choices":[{"delta":{"content":"b"}}],"usage":null}"#,
        r#"{"choices":[{"delta":{"content":"b"}}]}"#,
        r#"{"choices":[{"delta":{"content":"c"}}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#,
    ];
    let expected = [
        plain(5, 1),
        plain(5, 1),
        plain(5, 1),
        plain(5, 3),
        plain(5, 3),
    ];
    assert_eq!(stream(&chunks, Quirks::default()), expected);
}

#[test]
fn p2_a_later_report_without_details_does_not_wipe_them() {
    let details = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#;
    let split = Some(Ok(Usage {
        prompt: 5,
        cached_prompt: 4,
        completion: 3,
        reasoning: 2,
        ..Usage::default()
    }));
    let same = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_tokens_details":null}}"#;
    assert_eq!(stream(&[details, same], Quirks::default()), [split, split]);
    // Other totals are another report: the old split says nothing about them.
    let other = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":6}}"#;
    assert_eq!(
        stream(&[details, other], Quirks::default()),
        [split, plain(10, 6)]
    );
    // An explicit zero is a detail.
    let zero = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#;
    assert_eq!(
        stream(&[details, zero], Quirks::default()),
        [split, plain(9, 5)]
    );
}

#[test]
fn an_unusable_last_report_is_a_fault_not_the_one_before_it() {
    let good = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}}"#;
    let bad = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":-5}}"#;
    let fault = Some(Err(UsageFault::NotACount {
        field: "completion_tokens",
    }));
    assert_eq!(
        stream(&[good, bad, good], Quirks::default()),
        [plain(9, 5), fault, plain(9, 5)]
    );
}

#[test]
fn usage_is_found_where_the_provider_puts_it() {
    let usage = r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#;
    let groq = format!(r#"{{"choices":[],"x_groq":{{"usage":{usage}}}}}"#);
    let moonshot =
        format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop","usage":{usage}}}]}}"#);
    let everywhere = quirks("usage_at = ['/usage', '/x_groq/usage', '/choices/0/usage']");
    assert_eq!(stream(&[&groq], everywhere.clone()), [plain(1, 2)]);
    assert_eq!(stream(&[&moonshot], everywhere), [plain(1, 2)]);
    assert_eq!(stream(&[&moonshot], Quirks::default()), [None]);
    // The first place counts; a null there does not.
    let both = format!(
        r#"{{"choices":[],"usage":null,"x_groq":{{"usage":{usage}}},"y":{{"usage":{{"prompt_tokens":7,"completion_tokens":7}}}}}}"#
    );
    let order = quirks("usage_at = ['/usage', '/x_groq/usage', '/y/usage']");
    assert_eq!(stream(&[&both], order), [plain(1, 2)]);
}

#[test]
fn usage_beside_an_error_or_after_the_finish_counts_and_after_done_does_not() {
    let usage = r#""usage":{"prompt_tokens":1,"completion_tokens":2}"#;
    let error = format!(r#"{{"error":{{"code":502}},{usage}}}"#);
    assert_eq!(stream(&[&error], Quirks::default()), [plain(1, 2)]);
    let chunk = format!(r#"{{"choices":[],{usage}}}"#);
    let finish = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    assert_eq!(stream(&[finish, &chunk], Quirks::default())[1], plain(1, 2));
    assert_eq!(stream(&["[DONE]", &chunk], Quirks::default()), [None, None]);
}

#[test]
fn endings() {
    let begun = r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{}}]}"#;
    let first = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let second = r#"{"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}"#;
    let not_yet = r#"{"choices":[{"index":1,"delta":{},"finish_reason":""}]}"#;
    let error = r#"{"error":"gone"}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let ending = |chunks: &[&str]| {
        let mut decoder = Dialect::OpenAi.decoder(Arc::new(Quirks::default()), 0);
        let mut out: Vec<Delta> = Vec::new();
        for chunk in chunks {
            decoder
                .push(SseEvent::data(Bytes::from((*chunk).to_owned())), &mut out)
                .unwrap();
        }
        decoder.ending()
    };
    assert_eq!(ending(&[]), Ending::Cut);
    assert_eq!(ending(&[usage]), Ending::Cut);
    assert_eq!(ending(&[begun, first]), Ending::Cut);
    assert_eq!(ending(&[begun, first, not_yet]), Ending::Cut);
    assert_eq!(ending(&[begun, first, second]), Ending::Finished);
    assert_eq!(ending(&[begun, first, second, error]), Ending::Cut);
    assert_eq!(ending(&[begun, " [DONE] "]), Ending::Done);
    assert_eq!(ending(&["[DONE]", "[DONE]", "garbage"]), Ending::Done);
}

proptest! {
    /// Whatever a provider reports, no token is in two buckets.
    #[test]
    fn buckets_add_up_to_what_was_reported(
        prompt in 0_u32..50, completion in 0_u32..50,
        cached in prop::option::of(0_u32..60), write in prop::option::of(0_u32..20),
        audio in prop::option::of(0_u32..60), image in prop::option::of(0_u32..60),
        reasoning in prop::option::of(0_u32..60), spoken in prop::option::of(0_u32..30),
        total in prop::option::of(0_u32..150), beside in any::<bool>(),
    ) {
        let json = serde_json::json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": write,
                "audio_tokens": audio, "image_tokens": image},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": spoken},
        });
        let quirks = quirks(if beside { "reasoning='beside'" } else { "" });
        if let Ok(usage) = read(&json.to_string(), &quirks).unwrap() {
            prop_assert_eq!(usage.prompt_total(), u64::from(prompt));
            let extra = if beside { usage.reasoning } else { 0 };
            prop_assert_eq!(usage.completion_total(), u64::from(completion) + extra);
            if let Some(total) = total {
                prop_assert!([usage.total(), usage.total() - extra].contains(&u64::from(total)));
            }
        } else {
            let sum = u64::from(prompt + completion);
            let parts_fit = cached.unwrap_or(0) + write.unwrap_or(0) <= prompt
                && audio.unwrap_or(0) + image.unwrap_or(0) <= prompt
                && reasoning.filter(|_| !beside).unwrap_or(0) + spoken.unwrap_or(0) <= completion;
            let total_fits = total.is_none_or(|total| u64::from(total) == sum);
            prop_assert!(!(parts_fit && total_fits), "refused {json}");
        }
    }

    #[test]
    fn nothing_panics_on_any_usage(usage in "[-0-9.eE\"{}:,a-z_\\[\\] ]{0,60}") {
        let body = format!(r#"{{"choices":[],"usage":{usage}}}"#);
        let _ = Dialect::OpenAi.decode(Bytes::from(body), &Quirks::default(), 0);
    }
}
