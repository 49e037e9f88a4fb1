//! What clients ask, as it is read, counted and written for each kind of provider.

use dialect::{
    ChatRequest, ClientDialect, ClientRequest, Composing, Dialect, Edit, Effort, Endpoint,
    Features, Forwarded, Keep, NativeEdit, Pair, Quirks, RequestLimits, Thinking, WireRequest,
};
use tokens::{Encoding, Factor, ImageRule, Part, PromptRules, Tokenizer};

use crate::{assert_json, choice, pick, quirks};

const DIALECTS: [Dialect; 7] = [
    Dialect::OpenAi,
    Dialect::Anthropic,
    Dialect::AnthropicVertex,
    Dialect::Cohere,
    Dialect::Ollama,
    Dialect::Gemini,
    Dialect::Bedrock,
];

/// Models that think and models that do not.
fn features(choice: &mut usize) -> Features {
    let thinking = [
        Thinking::Never,
        Thinking::Budget,
        Thinking::Adaptive,
        Thinking::Always,
    ];
    Features {
        thinking: pick(choice, &thinking).unwrap_or_default(),
        effort: vec![Effort::Low, Effort::Medium, Effort::High],
        ..Features::PLAIN
    }
}

fn edit<'a>(features: &'a Features) -> Edit<'a> {
    Edit {
        upstream_model: "up/m:1",
        output_limit: Some(100),
        output_tokens_max: 4096,
        features,
        ask_stream_usage: true,
    }
}

#[track_caller]
fn check_wire(wire: &WireRequest) {
    assert!(wire.path.starts_with('/'), "{}", wire.path);
    assert_json("a request for a provider", &wire.body);
}

/// A chat request for every provider.
pub(crate) fn chat(data: &[u8]) {
    let Some((mut choice, rest)) = choice(data) else {
        return;
    };
    let features = features(&mut choice);
    let quirks = quirks(&mut choice);
    let Ok(request) = ChatRequest::parse(rest, &RequestLimits::default()) else {
        return;
    };
    written(&request, rest.len(), &features, &quirks);
}

fn written(request: &ChatRequest<'_>, bytes: usize, features: &Features, quirks: &Quirks) {
    let edit = edit(features);
    for dialect in DIALECTS {
        let _ = dialect.hides_output(request, features);
        if let Ok(wire) = dialect.encode(request, &edit, quirks) {
            check_wire(&wire);
        }
    }
    // What is set aside without counting is never below what is counted.
    let rules = PromptRules::new(
        Tokenizer::new(Encoding::O200kBase, Factor::EXACT),
        ImageRule::Gpt4o,
    );
    let inside = |part: &Part<'_>| {
        let elsewhere = usize::MAX;
        !matches!(part, Part::File { bytes } | Part::Audio { bytes, .. } if *bytes == elsewhere)
    };
    let parts: Vec<_> = request.parts().into_iter().filter(inside).collect();
    let images = parts
        .iter()
        .filter(|part| matches!(part, Part::Image { .. }));
    let bound = rules.upper_bound(bytes, images.count());
    let count = rules.count(&parts).prompt_total();
    assert!(
        count <= bound,
        "{count} tokens counted above the bound of {bound}"
    );
}

/// A request of Anthropic's or of OpenAI's Responses, as a chat and as it came.
pub(crate) fn other_clients(data: &[u8]) {
    let Some((mut choice, rest)) = choice(data) else {
        return;
    };
    let clients = [ClientDialect::Messages, ClientDialect::Responses];
    let Some(client) = pick(&mut choice, &clients) else {
        return;
    };
    let features = features(&mut choice);
    let quirks = quirks(&mut choice);
    let limits = RequestLimits::default();
    let Ok(request) = ClientRequest::parse(client, rest, &limits) else {
        return;
    };
    let native = NativeEdit {
        betas: &["context-management-2025-06-27,files-api-2025-04-14"],
        keep: false,
        continues: false,
        files: &[],
        items: &["msg_1"],
    };
    for provider in [
        Dialect::OpenAi,
        Dialect::Anthropic,
        Dialect::AnthropicVertex,
    ] {
        let pair = Pair::new(client, provider, &quirks);
        let target = Composing {
            quirks: &quirks,
            reasons: features.thinking != Thinking::Never,
            native: pair.is_native(),
            cache_marks: provider == Dialect::OpenAi,
        };
        if let Ok(Some(composed)) = request.compose(&target) {
            assert_json("a chat request", &composed.body);
            if let Ok(chat) = ChatRequest::parse(&composed.body, &limits) {
                written(&chat, composed.body.len(), &features, &quirks);
            }
        }
        if let Ok(Some(wire)) = request.encode_native(provider, &edit(&features), &quirks, &native)
        {
            check_wire(&wire);
        }
    }
    let _ = (
        request.repeated(Keep::Gateway),
        request.searches(),
        request.model().len(),
    );
}

/// A request that is forwarded as it is.
pub(crate) fn forwarded(data: &[u8]) {
    let Some((mut choice, rest)) = choice(data) else {
        return;
    };
    let Some(endpoint) = pick(&mut choice, &Endpoint::ALL) else {
        return;
    };
    let Ok(request) = Forwarded::parse(endpoint, rest, &RequestLimits::default()) else {
        return;
    };
    assert_json("a forwarded request", &request.encode("up/m:1"));
    assert_json(
        "a forwarded request for events",
        &request.encode_as_events("m"),
    );
    let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::EXACT);
    let count = request.tokens(|text| tokenizer.count(text));
    let bound = request.tokens(|text| tokenizer.upper_bound(text.len()));
    assert!(
        count <= bound,
        "{count} tokens counted above the bound of {bound}"
    );
    let _ = (
        request.pieces(),
        request.inputs(),
        request.size(),
        request.quality(),
    );
}
