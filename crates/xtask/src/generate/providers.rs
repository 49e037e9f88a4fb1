//! Writes docs/providers.md: every built-in provider, what to set for it, and how it deviates.

use std::fmt::Write as _;

use crate::{
    checkout::Checkout,
    provider_file::{Auth, Placement, ProviderFile, Quirks, Responses, UsageHow},
    report::Failure,
};

const HEAD: &str = "\
<!-- Written by `cargo xtask gen providers` from providers/*.toml; edit those. -->

# Providers

A provider is a file. These are built in; each is served as soon as the environment variables in its
row are set. Models are asked for by their id (`gpt-4o`) or with the provider's name before it
(`openai/gpt-4o`).

Prices are credits per million tokens, one credit being one US dollar, taken from the price table and on
the day that the file names. Look them over before you sell: providers change them without asking.

";

const TAIL: &str = "
A model without a price is listed and refused until you write one: an unknown price is an error, never
zero.

## Your own prices, models and providers

Put a file `NAME.toml` into a directory and start with `--providers DIR` (or `TOLLWAY_PROVIDERS`). A file
with the name of a built-in provider takes its place, so begin with a copy of the built-in file:

```toml
name = \"acme\"                      # lower case letters, digits, dashes
dialect = \"openai\"                 # what it speaks: openai, anthropic, gemini, cohere, ollama, bedrock …
base_url = \"https://api.acme.example/v1\"   # ${NAME} is replaced from the environment
api_key_env = \"ACME_API_KEY\"       # left out: no key is sent
auth = \"bearer\"                    # or { header = \"api-key\" }, …, \"service_account\" (Vertex AI), \"aws\" (Bedrock)

[[models]]
id = \"acme-large\"                  # what clients ask for
upstream_id = \"large-2026-01\"      # what the provider calls it; left out: the id
tokenizer = \"o200k_base\"           # or cl100k_base
tokenizer_json = \"acme.json\"       # or the model's own, as Hugging Face has it: a path
token_factor = 1100                # thousandths: its tokens for each of the tokenizer's
learn_factor = true                # its answers correct that; left out: unless the tokenizer is known to be its own
context_window = 128000
max_output_tokens = 16384
hidden_output = false              # true: it thinks out of sight, so the worst case is set aside
price = { prompt = \"2.50\", completion = \"10.00\", cached_prompt = \"1.25\" }
price_tiers = [
    { above_prompt_tokens = 200000, whole_request = true, price = { prompt = \"5\", completion = \"15\" } },
]
```

A price may also name `cache_write_5m`, `cache_write_1h`, `audio_prompt`, `audio_completion`, `reasoning`,
`image_prompt` and `image_completion` (images that are counted in tokens). A kind of token that it does not name costs
what the whole costs that it is part of. What is sold by the piece: `character` (per million), `image`, `second`, `search`,
`page` and `request` (each per one); `prompt` and `completion` may then be left out. `minimum` is what a request costs at
least. A free model says so: `price = { prompt = \"0\", completion = \"0\" }`.

A tier applies where the whole prompt has more tokens than `above_prompt_tokens`: to the whole request, or with
`whole_request = false` only to the prompt's tokens beyond that number (the output then keeps the price below).

## Endpoints

A model answers chats, unless its `endpoints` say what else it does: `chat`, `completions`, `embeddings`,
`moderations`, `rerank`, `image_generations`, `image_edits`, `speech`, `transcriptions`, `translations`. It is
refused everywhere else. An endpoint that is not at its usual path below the base URL has a path, or an address,
of its own:

```toml
[paths]
rerank = \"https://api.acme.example/v2/rerank\"
```

What these models are sold by stands in their `price`. Images whose price depends on what is asked for have a list; a
request that names no size or quality means the default, and one that the list does not have costs what its dearest
entry costs:

```toml
[[models]]
id = \"acme-picture\"
endpoints = [\"image_generations\"]
context_window = 4000
price = { image = \"0.04\" }
image_prices = [
    { size = \"1024x1024\", quality = \"standard\", default = true, price = { image = \"0.04\" } },
    { size = \"1792x1024\", quality = \"hd\", price = { image = \"0.12\" } },
]
```

Before such a request runs, its worst case is set aside: the text by its bytes or counted; images by `n`, and where they
are sold by tokens by `max_output_tokens` for each; a recording by its length, which is measured in WAV and MP3 files and
is a second for every 500 bytes of any other; a transcript by `max_output_tokens`. It is charged by what the answer
reports, and by our own count where it reports nothing. Speech that is sold by tokens is asked for as events, because
only these say how many there were; the client gets audio all the same.

Forms are read whole, within `body_bytes_max`, and written anew for the provider with the same fields; a field that
OpenAI's API does not have is refused. An `Idempotency-Key` stands for the bytes of a form, its boundary included.

## Passing through

What else a provider answers below `/v1` can be passed on to it, where its file says so and says what that costs:

```toml
[passthrough]
\"POST /vector_stores\" = { price = \"free\" }
\"GET /vector_stores/{id}\" = { price = \"free\" }
\"DELETE /vector_stores/{id}\" = { price = \"free\" }
\"POST /vector_stores/{id}/search\" = { price = { request = \"0.0025\" } }
\"POST /uploads/{id}/complete\" = { price = \"free\", makes = [\"/file/id\"] }
\"GET /vector_stores\" = { price = \"free\", shared = true }
\"POST /fim/completions\" = { price = \"usage\" }
```

| key | says |
|---|---|
| `price` | `\"free\"`; `{ request = \"0.01\" }`: credits for each request that succeeds; `\"usage\"`: the price of the `model` in the body, by the usage that the answer reports (`POST` alone, JSON alone) |
| `makes` | where the answer has the ids of what was made, as JSON pointers; a `POST` without `{id}` has `[\"/id\"]` |
| `shared` | everybody may reach it, and nobody owns what it makes. A path without `{id}` that is no `POST` needs it: a list shows what all customers made |

All customers share your account at the provider, so what a key makes is written down as its own: the first `{id}` of a path must
be the key's, and nothing that a request names, in its path, query or body, may be another key's. Both are a 404. What was made
past Tollway is nobody's: use an account or project at the provider that has nothing else in it.

A path is passed on only as plain words: anything escaped, empty parts and dots are a 404. Of the client's headers `accept`, `content-type`
and `openai-beta` travel, and never its key. No built-in file lets anything through.

## Other prices for other times

A model may have prices of its own for service tiers, for parts of the week, and from a day on:

```toml
service_tiers = { batch = { factor = \"0.5\" }, priority = { price = { prompt = \"5\", completion = \"20\" } } }
price_hours = [
    { from = \"16:30\", to = \"00:30\", factor = \"0.5\" },
    { days = [\"sat\", \"sun\"], time_zone = \"Asia/Shanghai\", price = { prompt = \"1\", completion = \"4\" } },
]
price_versions = [{ valid_from = \"2027-01-01\", price = { prompt = \"2\", completion = \"8\" } }]
```

A part of the week is hours, days (`mon` to `sun`) or both, by UTC or by the clocks and the calendar of the `time_zone` it names.
Hours that go over midnight belong to the day that they begin on, and the first part that fits counts. Public holidays are
days like others.

A request is charged by the version and the hour of its admission, and by the service tier that the answer names, else by
the one that was asked for by `service_tier`, on whichever endpoint. `priority` is refused where it has no price; `flex` then
has the plain one. A word that is none of `auto`, `default`, `flex` and `priority` is refused before any provider sees it. Credit is set
aside by the tier that is asked for: where your project at the provider serves `auto` by another tier than the plain one, say so
with `set = { service_tier = \"priority\" }` under `[quirks]`.

## Own prices and markups

The setting `prices` names a file of the operator's. Its prices are what the operator pays, in place of those of the
provider files; markups are what customers pay on top. The narrowest markup counts: of an account, then of a group (an
account's metadata says `price_group`), then of a model.

```toml
[[prices]]
model = \"openai/gpt-4o\"       # provider/id; * stands for any text
valid_from = \"2027-01-01\"     # left out: always
price = { prompt = \"2\", completion = \"8\" }

[[markups]]
factor = \"1.25\"
model = \"openai/*\"

[[markups]]
factor = \"1.1\"
group = \"gold\"
```

`GET /admin/v1/usage` shows both: `cost` and `charged` for the customer, `provider_cost` for the operator, and the margin.

## Quirks

Where a provider deviates from its dialect, `[quirks]` says how. The words are these and no others.

| quirk | does |
|---|---|
| `rename` | sends a member of the request under another name |
| `drop` | leaves members out without a word |
| `drop_unsupported` | leaves out what the provider cannot do, which is otherwise a 400 that names the parameter; a route can say the same |
| `unsupported` | refuses a request with one of these members, naming it: most change the price in a way that no price per token can say |
| `set` | always sends a member with this value |
| `clamp` | moves a number into a range |
| `path` | the path after the base URL; left out: the dialect's own (`/chat/completions`, `/messages`, `/chat`, `/api/chat`) |
| `headers` | sends these headers |
| `output_limit_field` | the member that carries the output limit where the client names none |
| `usage_at` | where the usage may be, as JSON pointers |
| `usage_how` | `stream_options`: streams report usage when asked; `always`: unasked; `never` |
| `reasoning` | `beside`: `completion_tokens` leaves the reasoning out |
| `cached` | `beside`: `prompt_tokens` leaves cached tokens out |
| `responses` | `stored` or `stateless`: it has OpenAI's Responses itself, and keeps them or not; requests to `/v1/responses` then [travel as they are](clients.md#before-a-provider-that-has-responses) |

`rename`, `output_limit_field`, `usage_at`, `usage_how`, `reasoning`, `cached` and `responses` are about the dialect `openai`
and are refused in files of others.

Azure's older addresses name the deployment in the path and a version in the query. In a copy of `azure-openai.toml` that is
two lines, and `upstream_id` of a model is the name of its deployment:

```toml
base_url = \"${AZURE_OPENAI_ENDPOINT}\"
# under [quirks]
path = \"/openai/deployments/{model}/chat/completions?api-version=2024-10-21\"
```

## The dialect `anthropic`

Clients speak OpenAI's chat API all the same; the request becomes one of Anthropic's Messages API, and the answer
becomes a completion. `anthropic-version: 2023-06-01` is sent unless `headers` name another; from `2026-10-21` on that
API takes no `temperature`, `top_p` and `top_k`. What differs from model to model is data, under `features`:

```toml
[[models]]
id = \"claude-large\"
features = { thinking = \"adaptive\", effort = [\"low\", \"medium\", \"high\"], sampling = false, forced_tools = true, prefill = false }
```

| feature | says |
|---|---|
| `thinking` | `never`; `budget`: when asked, by a number of tokens; `adaptive`: when asked; `on`: unless asked not to; `always`. Left out: `never` |
| `effort` | the levels that can be asked for, of `low`, `medium`, `high`, `xhigh`, `max`. Left out: none |
| `sampling` | `false`: `temperature`, `top_p` and `top_k` stay at their defaults |
| `forced_tools` | `false`: no `tool_choice` that demands a call |
| `prefill` | `false`: the messages do not end with the assistant's |

| of the client's | becomes |
|---|---|
| `system` and `developer` messages, wherever they stand | `system`, in order; where there is nothing else, the user's message |
| `tool` messages | results in the user's turn; turns of one role are joined |
| images and files | data URLs (PNG, JPEG, GIF, WebP; PDF) and https addresses; nothing is fetched by the gateway |
| `max_tokens`, `max_completion_tokens` | `max_tokens`, at most what the model has and what is affordable |
| `reasoning_effort` | the nearest `effort` below, and `thinking`: adaptive and summarized, or a budget of 20, 50, 80 or 95 percent of the output. None where a call is demanded, or where an answer to a call comes without the thinking that led to it |
| `response_format` | `json_schema` becomes `output_config.format`; `json_object` has no counterpart |
| `parallel_tool_calls: false` | `disable_parallel_tool_use` |
| `safety_identifier`, `user` | `metadata.user_id` |
| `temperature` and `top_p` of 1 | left out: it is the default |
| `stream_options`, `metadata`, `store`, `prompt_cache_key`, `prompt_cache_retention`, a message's `name`, an image's `detail` | left out: they have no effect there |
| `thinking`, `top_k`, `output_config`, `cache_control` (also on parts, tools and results) | travel as they are |
| anything else (`n` above 1, `logprobs`, penalties, `seed`, audio, tools that the provider runs itself, `service_tier`, `speed`, `inference_geo`, …) | a 400 that names it, or left out by `drop_unsupported` |

Thinking comes as `reasoning_content`, and once more in `reasoning_details`, where each piece stands with its `index`
and, at its end, its `signature`; thinking that is withheld comes there as `reasoning.encrypted`. Send the assistant's
message back with its `reasoning_details` (or with `thinking_blocks` as Anthropic has them) to go on after a call of a
tool without losing it. What is thought is billed in full and shown in part or not at all, so a request that makes a
model think sets the worst case aside.

`stop_reason` becomes `finish_reason`: `end_turn` and `stop_sequence` are `stop`, `tool_use` is `tool_calls`, `refusal`
is `content_filter`, and `max_tokens`, `model_context_window_exceeded` and `pause_turn` are `length`; the word itself is in
`native_finish_reason`. Prompt tokens of an answer are all of them, those of the cache included (`cached_tokens`,
`cache_write_tokens`); each is charged by its own price.

## The dialect `cohere`

The request becomes one of Cohere's chat API v2. What is charged is `billed_units`, which leaves out the preamble that
Cohere puts before every prompt.

| of the client's | becomes |
|---|---|
| `system` and `developer` messages | `system` messages, where they stand |
| images | `image_url` parts, data URLs and addresses; nothing is fetched by the gateway |
| `top_p`, `top_k`, `stop` | `p`, `k`, `stop_sequences` |
| `tool_choice` | `required` is `REQUIRED`, `none` is `NONE`; a function by name is the only one offered, and `REQUIRED` |
| `strict` of a function | `strict_tools` |
| `response_format` | `json_object`, with the schema where there is one |
| `reasoning_effort` | `thinking` on or off; `features.thinking` says whether the model has it |
| `reasoning_content` of a message with calls | its `tool_plan` |
| `documents`, `citation_options`, `safety_mode`, `priority`, `strict_tools`, `thinking` | travel as they are |
| anything else (`n` above 1, `logprobs`, `logit_bias`, `parallel_tool_calls: false`, files, audio, …) | a 400 that names it, or left out by `drop_unsupported` |

Thinking and the plan before a call come as `reasoning_content`, citations as `citations` beside the text.
`finish_reason` is `stop` for `COMPLETE` and `STOP_SEQUENCE`, `length` for `MAX_TOKENS`, `tool_calls` for `TOOL_CALL`; `ERROR`
and `TIMEOUT` are errors.

## The dialect `ollama`

The request goes to Ollama's own `/api/chat`, which says more than its OpenAI endpoint: it has `think`, `keep_alive` and every
option. A model of your own has no list price: write one, or zero.

| of the client's | becomes |
|---|---|
| the texts of a message | one text, each on lines of its own |
| images | base64, from data URLs alone: nothing is fetched |
| `max_tokens`, `temperature`, `top_p`, `top_k`, `min_p`, `seed`, penalties, `stop` | `options` (`num_predict`, …), over the client's own `options` |
| `tools` | as they are; with `tool_choice` of `none` they are left out, and a call cannot be demanded |
| `tool` messages | with the name of what was called, found by the call's id |
| `response_format` | `format`: `json`, or the schema |
| `reasoning_effort` | `think`: the nearest level of `features.effort` below, or true; false for `none` |
| `think`, `keep_alive` | travel as they are |
| `options.num_predict` | a 400: the limit is `max_tokens` |

Calls without ids get some out of the request's own id. `prompt_eval_count` and `eval_count` are what is charged.

## The dialect `gemini`

The request becomes Google's `generateContent`, of the Gemini API (AI Studio) or of Vertex AI. What differs from model to
model is data, under `features`: `thinking` as above, and `effort`, the levels (`minimal`, `low`, `medium`, `high`) of models
that are told to think by `thinkingLevel`; a model without levels is told by `thinkingBudget`.

| of the client's | becomes |
|---|---|
| `system` and `developer` messages, wherever they stand | `systemInstruction`; where there is nothing else, the user's message |
| `tool` messages | results by the name of what was called, in the order of the calls; an answer that is a JSON object stays one |
| images, audio, PDFs, plain text, videos (`video_url`) | data URLs become `inlineData`; https addresses become `fileData`, which Google fetches, never the gateway. `gs://` and files of the Gemini API are the operator's and refused |
| `tools`, `tool_choice` | `functionDeclarations` and `functionCallingConfig`; a function's `strict` is left to the model |
| `response_format` | `responseMimeType`, and `responseJsonSchema` for a schema |
| `reasoning_effort` | the nearest level of `effort` below; else a budget of 1,024, 8,192 or 24,576 tokens for `low`, `medium` and `high`, and none for `none`. Thoughts are then summarized |
| `max_tokens`, `n`, `temperature`, `top_p`, `top_k`, `seed`, penalties, `stop`, `logprobs`, `top_logprobs` | their counterparts in `generationConfig` |
| `modalities` | `responseModalities`, of text and images |
| `google`, or `extra_body.google` | its `thinking_config` and `safety_settings`; cached content is the operator's and refused |
| `stream_options`, `metadata`, `store`, `user`, `safety_identifier`, `prompt_cache_key`, `prompt_cache_retention`, an image's `detail` | left out: they have no effect there |
| anything else (`parallel_tool_calls: false`, `logit_bias`, audio output, tools that Google runs itself, `service_tier`, …) | a 400 that names it, or left out by `drop_unsupported` |

Summaries of thoughts come as `reasoning_content`, images as `images`. A signature of thoughts comes where Google's own
endpoint for OpenAI's clients has it, in `extra_content.google.thought_signature` of a call or of the message: send the
message back as it came. Models with levels refuse calls without one; to a conversation that another model began Google's
own placeholder is added. Calls without ids get them (`call_ANSWER_N`).

Output tokens are what was said and what was thought; the prompt includes what was cached, and audio and images have
prices of their own. A stop for safety, with or without content, and a prompt that is blocked are `content_filter`;
`MAX_TOKENS`, and a call that the model did not manage to write, are `length`. A key that is not valid and an account
without billing, which Google answers with 400, are the operator's trouble: 502.

### Vertex AI

`vertex` serves Gemini and `vertex-anthropic` Claude (in the dialect `anthropic_vertex`: Anthropic's, at Google's addresses)
as soon as these are set:

| variable | is |
|---|---|
| `GOOGLE_APPLICATION_CREDENTIALS` | the path of a service account's key file, or its text; what `gcloud auth application-default login` leaves behind serves as well |
| `GOOGLE_CLOUD_PROJECT` | the project |
| `GOOGLE_CLOUD_LOCATION` | a region, `us`, `eu` or `global` |

`auth = \"service_account\"` makes the gateway sign for a token of an hour, share it among all requests, and renew it five
minutes before it ends. A token that was refused (401) is given up. While there is none, requests are answered with 502
and cost nothing.

## The dialect `bedrock`

The request becomes one of Amazon Bedrock's Converse, or ConverseStream for a stream; the frames of its binary event
stream are checked and bounded like any event. `AWS_REGION` is the region. `AWS_BEARER_TOKEN_BEDROCK` is a Bedrock API key; without it requests
are signed (Signature Version 4) with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for keys that are lent,
`AWS_SESSION_TOKEN`, read at the start. Roles of machines and profiles are not looked up.

| of the client's | becomes |
|---|---|
| `system` and `developer` messages, wherever they stand | `system`, in order; where there is nothing else, the user's message |
| `tool` messages | results in the user's turn; turns of one role are joined |
| images (PNG, JPEG, GIF, WebP) and files (PDF, CSV, Word, Excel, HTML, text, Markdown) | from data URLs alone: nothing is fetched, from the web or from the operator's buckets |
| `cache_control` of a part | a `cachePoint` after it, with its `ttl` |
| `max_tokens`, `temperature`, `top_p`, `stop` | `inferenceConfig` |
| `top_k` | what Bedrock passes on to Claude or Nova; a 400 for other models |
| `reasoning_effort` | `thinking` and effort for Claude, as in the dialect `anthropic`; `reasoningConfig` for Nova 2; `reasoning_effort` for gpt-oss; a 400 for other models |
| `response_format` | `json_schema` becomes `outputConfig.textFormat`; `json_object` has no counterpart |
| `tool_choice` | `any` or `tool`; with `none` no tools are sent, which is a 400 once the conversation has called one |
| `guardrailConfig`, `serviceTier`, `performanceConfig`, `additionalModelRequestFields` | a 400: they change prices or are the operator's, who can `set` them |
| anything else (`n` above 1, `seed`, `logprobs`, penalties, `parallel_tool_calls: false`, …) | a 400 that names it, or left out by `drop_unsupported` |

Thinking comes and goes back as in the dialect `anthropic`, with a format of its own. `inputTokens` leaves out what the cache
gave and took (`cacheReadInputTokens`, `cacheWriteInputTokens`, split by `cacheDetails`); each is charged by its own price. An
exception inside the stream is an error inside the client's stream. `guardrail_intervened` and `content_filtered` are
`content_filter`; `max_tokens`, `model_context_window_exceeded` and malformed output are `length`.

## To add a provider here

Write `providers/NAME.toml` without models, ending in the marker line of the other files; add the provider to
the plan in `crates/price-tables/prices.toml`; run `cargo xtask prices`, `cargo xtask gen` and `cargo xtask tidy`.
No Rust is involved.
";

/// The document.
pub(super) fn text(checkout: &Checkout) -> Result<String, Failure> {
    let mut files = Vec::new();
    for path in checkout.provider_files()? {
        files.push(ProviderFile::parse(&path, &checkout.read(&path)?)?);
    }
    Ok(document(&files))
}

fn document(files: &[ProviderFile]) -> String {
    let mut text = HEAD.to_owned();
    let models: usize = files.iter().map(|file| file.models.len()).sum();
    let _ = writeln!(text, "Providers: {}. Models: {models}.\n", files.len());
    text.push_str("| provider | set | models | prices | quirks |\n|---|---|---|---|---|\n");
    for file in files {
        text.push_str(&row(file));
    }
    text.push_str(TAIL);
    text
}

fn row(file: &ProviderFile) -> String {
    let title = file.display_name.as_deref().unwrap_or(&file.name);
    let title = match &file.docs_url {
        Some(url) => format!("[{title}]({url})"),
        None => title.to_owned(),
    };
    let variables: Vec<String> = file
        .environment()
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    let prices = match (&file.prices_from, &file.prices_taken) {
        (Some(from), Some(taken)) => format!("{from}, {taken}"),
        (Some(_) | None, Some(_) | None) => "set your own".to_owned(),
    };
    format!(
        "| [`{name}`](../providers/{name}.toml) {title} | {} | {} | {prices} | {} |\n",
        variables.join(", "),
        file.models.len(),
        quirks(&file.quirks, &file.auth),
        name = file.name,
    )
}

/// The quirks in words; what most providers share is left out.
fn quirks(quirks: &Quirks, auth: &Auth) -> String {
    let mut words = Vec::new();
    match auth {
        Auth::Bearer => {}
        Auth::Header(header) => words.push(format!("key in the header `{header}`")),
        Auth::ServiceAccount => words.push("a token by a service account".to_owned()),
        Auth::Aws => words.push("without the key, signed with Amazon's keys".to_owned()),
    }
    let named = |what: &str, members: &[String]| {
        let members: Vec<String> = members.iter().map(|member| format!("`{member}`")).collect();
        (!members.is_empty()).then(|| format!("{what} {}", members.join(", ")))
    };
    let keys = |members: &std::collections::BTreeMap<String, toml::Value>| {
        members.keys().cloned().collect::<Vec<_>>()
    };
    words.extend(
        quirks
            .rename
            .iter()
            .map(|(from, to)| format!("`{from}` becomes `{to}`")),
    );
    words.extend(named("drops", &quirks.drop));
    words.extend(named("refuses", &quirks.unsupported));
    if quirks.drop_unsupported {
        words.push("leaves out what it cannot do".to_owned());
    }
    words.extend(named("sets", &keys(&quirks.set)));
    words.extend(named("clamps", &keys(&quirks.clamp)));
    words.extend(named(
        "sends headers",
        &quirks.headers.keys().cloned().collect::<Vec<_>>(),
    ));
    words.extend(quirks.path.iter().map(|path| format!("path `{path}`")));
    words.extend(named("usage at", &quirks.usage_at));
    words.extend(match quirks.usage_how {
        Some(UsageHow::Always) => Some("usage unasked".to_owned()),
        Some(UsageHow::Never) => Some("no usage in streams".to_owned()),
        Some(UsageHow::StreamOptions) | None => None,
    });
    let beside = |part: &str, placement: Option<Placement>| match placement {
        Some(Placement::Beside) => Some(format!("{part} beside the total")),
        Some(Placement::Inside) | None => None,
    };
    words.extend(beside("reasoning", quirks.reasoning));
    words.extend(beside("cached tokens", quirks.cached));
    words.extend(match quirks.responses {
        Some(Responses::Stateless) => Some("Responses of its own".to_owned()),
        Some(Responses::Stored) => Some("Responses of its own, which it keeps".to_owned()),
        Some(Responses::Translated) | None => None,
    });
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ProviderFile {
        let head = "name = \"acme\"\ndialect = \"openai\"\nbase_url = \"${ACME_URL}/v1\"\napi_key_env = \"ACME_KEY\"\n";
        ProviderFile::parse("acme.toml", &format!("{head}{text}")).unwrap()
    }

    #[test]
    fn a_row_says_what_to_set_and_what_is_odd() {
        let acme = file(
            "display_name = \"Acme\"\ndocs_url = \"https://acme.example\"\nprices_from = \"x 1\"\nprices_taken = \"2026-11-22\"\n\
             auth = { header = \"api-key\" }\n[quirks]\nrename = { a = \"b\" }\ndrop = [\"c\"]\nunsupported = [\"d\"]\n\
             usage_how = \"always\"\nreasoning = \"beside\"\n[[models]]\nid = \"m\"\ncontext_window = 1\n",
        );
        assert_eq!(
            row(&acme),
            "| [`acme`](../providers/acme.toml) [Acme](https://acme.example) | `ACME_URL`, `ACME_KEY` | 1 | x 1, 2026-11-22 \
             | key in the header `api-key`; `a` becomes `b`; drops `c`; refuses `d`; usage unasked; reasoning beside the total |\n"
        );
    }

    #[test]
    fn a_plain_provider_has_a_plain_row() {
        assert_eq!(
            row(&file("")),
            "| [`acme`](../providers/acme.toml) acme | `ACME_URL`, `ACME_KEY` | 0 | set your own |  |\n"
        );
        assert!(document(&[file("")]).contains("Providers: 1. Models: 0."));
    }

    #[test]
    fn the_example_in_the_document_is_a_provider_file() {
        let (_, rest) = TAIL.split_once("```toml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        assert_eq!(
            ProviderFile::parse("example", example)
                .unwrap()
                .models
                .len(),
            1
        );
    }
}
