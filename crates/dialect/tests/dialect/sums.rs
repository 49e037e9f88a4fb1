//! Usage of any size in every dialect: the buckets add up to the provider's totals, or the report is a fault.
//!
//! What each provider's total is says its document; the sums here are taken from the numbers that a
//! report is written with, not from anything that was decoded.

use std::sync::Arc;

use bytes::Bytes;
use dialect::{
    ClientDialect, Dialect, Endpoint, ForwardedAnswer, Pair, Quirks, SseEvent, UsageFault,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokens::Usage;

use crate::played::origin;

/// A report, and the prompt and the output that its provider bills for it.
type Report = (Value, u64, u64);

fn read(dialect: Dialect, usage: &Value, quirks: &str) -> Option<Result<Usage, UsageFault>> {
    let body = match dialect {
        Dialect::OpenAi => json!({"choices": [], "usage": usage}),
        Dialect::Anthropic | Dialect::AnthropicVertex => json!({
            "id": "x", "type": "message", "role": "assistant", "model": "m", "content": [],
            "stop_reason": "end_turn", "usage": usage,
        }),
        Dialect::Gemini => json!({
            "candidates": [{"content": {"role": "model", "parts": [{"text": "a"}]}, "finishReason": "STOP"}],
            "usageMetadata": usage,
        }),
        Dialect::Bedrock => json!({
            "output": {"message": {"role": "assistant", "content": [{"text": "a"}]}},
            "stopReason": "end_turn", "usage": usage,
        }),
        Dialect::Cohere => json!({
            "id": "x", "finish_reason": "COMPLETE", "usage": usage,
            "message": {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        }),
        Dialect::Ollama => {
            let mut line = json!({"model": "m", "message": {"role": "assistant", "content": "a"}, "done": true});
            line.as_object_mut()
                .unwrap()
                .extend(usage.as_object().unwrap().clone());
            line
        }
    };
    let quirks: Quirks = toml::from_str(quirks).unwrap();
    let body = Bytes::from(body.to_string());
    dialect.decode(body, &quirks, origin()).unwrap().usage()
}

/// Counts that are often nothing, often few and now and then as large as there are.
fn count() -> BoxedStrategy<u64> {
    prop_oneof![3 => Just(0_u64), 6 => 1_u64..50, 2 => 50_u64..100_000, 1 => 0_u64..200_000_000]
        .boxed()
}

/// The same sums for counts that need not belong together: those that do not are faults.
fn one_of_few() -> impl Strategy<Value = u64> {
    0_u64..6
}

/// OpenAI's: parts inside their totals, or beside them by the provider's quirks.
fn openai(cached_beside: bool, reasoning_beside: bool, with_total: bool) -> BoxedStrategy<Report> {
    prop::array::uniform10(count()).prop_map(move |n| {
        let [text, read, write, audio, image, said, thought, spoken, drawn, _] = n;
        let inside = if cached_beside { 0 } else { read + write };
        let prompt = text + audio + image + inside;
        let completion = said + spoken + drawn + if reasoning_beside { 0 } else { thought };
        let mut usage = json!({
            "prompt_tokens": prompt, "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": write, "audio_tokens": audio, "image_tokens": image},
            "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": spoken, "image_tokens": drawn},
        });
        let all_of_it = text + audio + image + read + write;
        let output = said + spoken + drawn + thought;
        if with_total {
            usage["total_tokens"] = json!(all_of_it + output);
        }
        (usage, all_of_it, output)
    })
    .boxed()
}

/// Anthropic's: the cache beside the input, thinking inside the output.
fn anthropic() -> BoxedStrategy<Report> {
    prop::array::uniform6(count()).prop_map(|[input, read, five, hour, said, thought]| {
        let usage = json!({
            "input_tokens": input, "cache_read_input_tokens": read, "cache_creation_input_tokens": five + hour,
            "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
            "output_tokens": said + thought, "output_tokens_details": {"thinking_tokens": thought},
        });
        (usage, input + read + five + hour, said + thought)
    })
    .boxed()
}

/// Gemini's: the cache inside the prompt, what tools have read and what was thought beside the totals.
fn gemini() -> BoxedStrategy<Report> {
    prop::array::uniform10(count()).prop_map(|n| {
        let [text, audio, image, read, heard, tools, said, spoken, drawn, thought] = n;
        let by = |kinds: [(&str, u64); 3]| {
            let kinds = kinds.map(|(kind, n)| json!({"modality": kind, "tokenCount": n}));
            json!(kinds)
        };
        let prompt = text + audio + image + read + heard;
        let usage = json!({
            "promptTokenCount": prompt, "cachedContentTokenCount": read + heard,
            "promptTokensDetails": by([("TEXT", text + read), ("AUDIO", audio + heard), ("IMAGE", image)]),
            "cacheTokensDetails": by([("TEXT", read), ("AUDIO", heard), ("VIDEO", 0)]),
            "toolUsePromptTokenCount": tools,
            "candidatesTokenCount": said + spoken + drawn,
            "candidatesTokensDetails": by([("TEXT", said), ("AUDIO", spoken), ("IMAGE", drawn)]),
            "thoughtsTokenCount": thought,
            "totalTokenCount": prompt + tools + said + spoken + drawn + thought,
        });
        (usage, prompt + tools, said + spoken + drawn + thought)
    })
    .boxed()
}

/// Bedrock's: the cache beside the input.
fn bedrock() -> BoxedStrategy<Report> {
    prop::array::uniform5(count()).prop_map(|[input, read, five, hour, output]| {
        let usage = json!({
            "inputTokens": input, "outputTokens": output, "totalTokens": input + read + five + hour + output,
            "cacheReadInputTokens": read, "cacheWriteInputTokens": five + hour,
            "cacheDetails": [{"ttl": "5m", "inputTokens": five}, {"ttl": "1h", "inputTokens": hour}],
        });
        (usage, input + read + five + hour, output)
    })
    .boxed()
}

/// Cohere's billed units, beside the tokens that nobody pays for; Ollama's two counts.
fn cohere_and_ollama() -> BoxedStrategy<(Report, Report)> {
    prop::array::uniform4(count())
        .prop_map(|[input, output, more, other]| {
            let billed = json!({
                "billed_units": {"input_tokens": input, "output_tokens": output},
                "tokens": {"input_tokens": input + more, "output_tokens": output + other},
            });
            let counted =
                json!({"prompt_eval_count": input, "eval_count": output, "total_duration": more});
            ((billed, input, output), (counted, input, output))
        })
        .boxed()
}

/// The parts of a forwarded endpoint's report, by OpenAI's names.
fn forwarded() -> BoxedStrategy<Report> {
    prop::array::uniform6(count()).prop_map(|[text, audio, image, read, said, made]| {
        let input = text + audio + image + read;
        let usage = json!({
            "input_tokens": input, "output_tokens": said + made, "total_tokens": input + said + made,
            "input_tokens_details": {"cached_tokens": read, "text_tokens": text, "audio_tokens": audio, "image_tokens": image},
            "output_tokens_details": {"text_tokens": said},
        });
        (usage, input, said + made)
    })
    .boxed()
}

/// The same of Responses, of a provider that has them: every part inside its total.
fn responses() -> BoxedStrategy<Report> {
    prop::array::uniform8(count())
        .prop_map(|[text, read, write, image, said, thought, spoken, drawn]| {
            let (input, output) = (text + read + write + image, said + thought + spoken + drawn);
            let usage = json!({
                "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
                "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": write, "image_tokens": image},
                "output_tokens_details": {"reasoning_tokens": thought, "audio_tokens": spoken, "image_tokens": drawn},
            });
            (usage, input, output)
        })
        .boxed()
}

/// A response that travels as it is, at once and as the end of a stream.
fn read_response(usage: &Value) -> [Option<Result<Usage, UsageFault>>; 2] {
    let quirks: Quirks = toml::from_str("responses = 'stored'").unwrap();
    let pair = Pair::new(ClientDialect::Responses, Dialect::OpenAi, &quirks);
    let response = json!({"id": "x", "object": "response", "status": "completed", "output": [], "usage": usage});
    let end = json!({"type": "response.completed", "response": response});
    let whole = pair.decode(Bytes::from(response.to_string()), &quirks, origin());
    let mut decoder = pair.decoder(Arc::new(quirks), origin());
    let event = SseEvent::data(Bytes::from(end.to_string()));
    decoder.push(event, &mut Vec::new()).unwrap();
    [whole.unwrap().usage(), decoder.usage()]
}

#[track_caller]
fn adds_up(dialect: Dialect, quirks: &str, (usage, prompt, output): &Report) {
    let read = read(dialect, usage, quirks).expect("it reports usage");
    let read = read.unwrap_or_else(|fault| panic!("{fault}: {usage}"));
    assert_eq!(
        (read.prompt_total(), read.completion_total()),
        (*prompt, *output),
        "{usage}"
    );
}

proptest! {
    #[test]
    fn what_belongs_together_adds_up(
        inside in openai(false, false, true), silent in openai(false, false, false),
        cached in openai(true, false, true), reasoned in openai(false, true, true), both in openai(true, true, true),
        claude in anthropic(), gemini in gemini(), bedrock in bedrock(), (cohere, ollama) in cohere_and_ollama(),
    ) {
        adds_up(Dialect::OpenAi, "", &inside);
        adds_up(Dialect::OpenAi, "", &silent);
        adds_up(Dialect::OpenAi, "cached = 'beside'", &cached);
        adds_up(Dialect::OpenAi, "reasoning = 'beside'", &reasoned);
        adds_up(Dialect::OpenAi, "cached = 'beside'\nreasoning = 'beside'", &both);
        adds_up(Dialect::Anthropic, "", &claude);
        adds_up(Dialect::AnthropicVertex, "", &claude);
        adds_up(Dialect::Gemini, "", &gemini);
        adds_up(Dialect::Bedrock, "", &bedrock);
        adds_up(Dialect::Cohere, "", &cohere);
        adds_up(Dialect::Ollama, "", &ollama);
    }

    #[test]
    fn responses_add_up(report in responses(), n in prop::array::uniform6(one_of_few())) {
        let (usage, prompt, output) = report;
        for read in read_response(&usage) {
            let read = read.expect("it reports usage").unwrap_or_else(|fault| panic!("{fault}: {usage}"));
            prop_assert_eq!((read.prompt_total(), read.completion_total()), (prompt, output), "{}", usage);
        }
        let [input, output, read, image, thought, spoken] = n;
        let usage = json!({
            "input_tokens": input, "output_tokens": output,
            "input_tokens_details": {"cached_tokens": read, "image_tokens": image},
            "output_tokens_details": {"reasoning_tokens": thought, "audio_tokens": spoken},
        });
        for read in read_response(&usage).into_iter().flatten().flatten() {
            prop_assert_eq!((read.prompt_total(), read.completion_total()), (input, output), "{}", usage);
        }
    }

    #[test]
    fn forwarded_reports_add_up(report in forwarded()) {
        let (usage, prompt, output) = report;
        for endpoint in Endpoint::ALL {
            let body = Bytes::from(json!({"data": [], "usage": usage}).to_string());
            let read = ForwardedAnswer::decode(endpoint, body).unwrap().usage();
            let read = read.expect("it reports usage").unwrap_or_else(|fault| panic!("{fault}: {usage}"));
            prop_assert_eq!((read.prompt_total(), read.completion_total()), (prompt, output), "{}", usage);
        }
    }

    /// Counts that were put together at random: whatever is not a fault adds up all the same.
    #[test]
    fn what_does_not_belong_together_is_a_fault_or_adds_up(n in prop::array::uniform10(one_of_few()), hour in one_of_few()) {
        let [prompt, completion, total, read, write, audio, image, thought, spoken, drawn] = n;
        let openai = json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": write, "audio_tokens": audio, "image_tokens": image},
            "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": spoken, "image_tokens": drawn},
        });
        for (quirks, cache_beside, reasoning_beside) in [
            ("", 0, 0), ("cached = 'beside'", read + write, 0), ("reasoning = 'beside'", 0, thought),
        ] {
            if let Some(Ok(usage)) = self::read(Dialect::OpenAi, &openai, quirks) {
                let totals = (usage.prompt_total(), usage.completion_total());
                prop_assert_eq!(totals, (prompt + cache_beside, completion + reasoning_beside), "{} {}", quirks, &openai);
            }
        }
        let claude = json!({
            "input_tokens": prompt, "cache_read_input_tokens": read, "cache_creation_input_tokens": write,
            "cache_creation": {"ephemeral_1h_input_tokens": hour}, "output_tokens": completion,
            "output_tokens_details": {"thinking_tokens": thought},
        });
        if let Some(Ok(usage)) = self::read(Dialect::Anthropic, &claude, "") {
            prop_assert_eq!((usage.prompt_total(), usage.completion_total()), (prompt + read + write, completion), "{}", claude);
        }
        let gemini = json!({
            "promptTokenCount": prompt, "cachedContentTokenCount": read, "candidatesTokenCount": completion,
            "thoughtsTokenCount": thought, "totalTokenCount": total,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": audio}, {"modality": "IMAGE", "tokenCount": image}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": write}],
            "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": spoken}],
        });
        if let Some(Ok(usage)) = self::read(Dialect::Gemini, &gemini, "") {
            prop_assert_eq!((usage.prompt_total(), usage.completion_total()), (prompt, completion + thought), "{}", gemini);
        }
        let bedrock = json!({
            "inputTokens": prompt, "outputTokens": completion, "cacheReadInputTokens": read, "cacheWriteInputTokens": write,
            "cacheDetails": [{"ttl": "1h", "inputTokens": hour}],
        });
        if let Some(Ok(usage)) = self::read(Dialect::Bedrock, &bedrock, "") {
            prop_assert_eq!((usage.prompt_total(), usage.completion_total()), (prompt + read + write, completion), "{}", bedrock);
        }
    }
}
