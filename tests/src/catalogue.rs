//! What the gateway under test serves: a few models with prices that are easy to reckon with.

use gateway::provider_file::ProviderFile;

/// The operator's key.
pub const ADMIN_KEY: &str = "admin-canary-5f0c1a7e9b";
/// The provider's key, which nobody but the provider may ever see.
pub const CANARY_PROVIDER_KEY: &str = "sk-provider-canary-77d0";
/// Shown in a 402.
pub const TOP_UP_URL: &str = "https://pay.example/top-up";
/// The variable that provider files name.
pub const KEY_VARIABLE: &str = "MOCK_API_KEY";

/// Dialects, each with a provider of that name and a model that costs what `m` does.
const OTHER_DIALECTS: [(&str, &str); 4] = [
    ("cohere", "command"),
    ("ollama", "local"),
    ("gemini", "gem"),
    ("bedrock", "nova"),
];

/// What `mock` lets through; a model's usage is that of `m`.
const PASSED_BY_MOCK: &str = r#"[passthrough]
"POST /vector_stores" = { price = "free" }
"GET /vector_stores" = { price = "free", shared = true }
"GET /vector_stores/{id}" = { price = "free" }
"DELETE /vector_stores/{id}" = { price = "free" }
"POST /vector_stores/{id}/search" = { price = { request = "0.0025" } }
"GET /vector_stores/{id}/files/{file_id}/content" = { price = "free" }
"POST /containers/{id}/files" = { price = "free" }
"POST /fine_tuning/jobs" = { price = "free" }
"POST /fim/completions" = { price = "usage" }
"GET /chat/completions" = { price = "free", shared = true }
"#;
/// What `backup` lets through.
const PASSED_BY_BACKUP: &str = r#"[passthrough]
"POST /vector_stores" = { price = "free" }
"GET /vector_stores/{id}" = { price = "free" }
"#;

/// The variables that provider files name.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    let value = match name {
        KEY_VARIABLE | "AWS_SECRET_ACCESS_KEY" => CANARY_PROVIDER_KEY,
        "AWS_ACCESS_KEY_ID" => "AKIDEXAMPLE",
        "AWS_REGION" => "us-east-1",
        _ => return None,
    };
    Some(value.to_owned())
}

/// The variable with the credentials of Google's cloud.
const CLOUD_VARIABLE: &str = "MOCK_CLOUD_CREDENTIALS";

/// The same, and the credentials of Google's cloud, whose tokens come from the provider at `url`.
pub fn variables(url: &str) -> impl Fn(&str) -> Option<String> + Sync + use<> {
    let credentials = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r","token_uri":"{url}/token"}}"#
    );
    move |name| {
        let cloud = (name == CLOUD_VARIABLE).then(|| credentials.clone());
        cloud.or_else(|| variable(name))
    }
}

/// Providers at one address. Every token of `m` costs 1 credit per million (1,000 nano);
/// `shared` is served by both, for twice as much by the second. A third speaks Anthropic's dialect:
/// `learner` is counted by a factor that its answers correct, the others exactly.
/// `claude` costs what `m` does, `claude-thinking` has a price for each kind of token. `text`,
/// `embed`, `moderate`, `rerank`, `picture`, `speak`, `hear` and those of them that are sold by tokens are for the endpoints that they are named after.
#[must_use]
pub fn provider_files(url: &str) -> Vec<(String, ProviderFile)> {
    let parsed = |(name, text): (&str, String)| {
        let file = ProviderFile::parse(name, &text).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        (name.to_owned(), file)
    };
    provider_texts(url).into_iter().map(parsed).collect()
}

/// The same as text, by their names.
#[must_use]
pub fn provider_texts(url: &str) -> Vec<(&'static str, String)> {
    let one = r#"prompt = "1", completion = "1""#;
    let mock = [
        model("m", "", one),
        model(
            "aliased",
            "upstream_id = \"real-name\"\naliases = [\"nick\"]\n",
            one,
        ),
        model("free", "", r#"prompt = "0", completion = "0""#),
        // A token of output costs a credit, a token of the prompt what it does for `m`.
        model("dear", "", r#"prompt = "1", completion = "1000000""#),
        model("hidden", "hidden_output = true\n", one),
        model(
            "fee",
            "",
            r#"prompt = "1", completion = "1", request = "0.001""#,
        ),
        model(
            "cached",
            "",
            r#"prompt = "4", completion = "8", cached_prompt = "1", reasoning = "16""#,
        ),
        model("shared", "upstream_id = \"shared-a\"\n", one),
        model(
            "odd",
            "",
            r#"prompt = "0.000001", completion = "0.333333333""#,
        ),
        // Text completions and chats, and what is sold by other units.
        model("text", "endpoints = [\"completions\"]\n", one),
        model(
            "embed",
            "endpoints = [\"embeddings\"]\n",
            r#"prompt = "1", completion = "0""#,
        ),
        model(
            "moderate",
            "endpoints = [\"moderations\"]\n",
            r#"request = "0.001""#,
        ),
        model(
            "rerank",
            "endpoints = [\"rerank\"]\n",
            r#"search = "0.002""#,
        ),
        model(
            "rerank-tokens",
            "endpoints = [\"rerank\"]\n",
            r#"prompt = "1", completion = "0""#,
        ),
        model(
            "picture",
            "endpoints = [\"image_generations\", \"image_edits\"]\n\
             image_prices = [\n\
             { size = \"1024x1024\", quality = \"standard\", default = true, price = { image = \"0.04\" } },\n\
             { size = \"1792x1024\", quality = \"hd\", price = { image = \"0.12\" } },\n]\n",
            r#"image = "0.04""#,
        ),
        model(
            "picture-tokens",
            "endpoints = [\"image_generations\", \"image_edits\"]\n",
            r#"prompt = "5", completion = "0", image_completion = "40""#,
        )
        .replace("max_output_tokens = 16384", "max_output_tokens = 200"),
        model("speak", "endpoints = [\"speech\"]\n", r#"character = "15""#),
        model(
            "speak-tokens",
            "endpoints = [\"speech\"]\n",
            r#"prompt = "1", completion = "12""#,
        ),
        model(
            "hear",
            "endpoints = [\"transcriptions\", \"translations\"]\n",
            r#"second = "0.0001""#,
        ),
        model(
            "hear-tokens",
            "endpoints = [\"transcriptions\"]\n",
            r#"prompt = "1", completion = "1", audio_prompt = "2""#,
        )
        .replace("max_output_tokens = 16384", "max_output_tokens = 6"),
        // The price of a service tier is another one.
        model(
            "tiered",
            "service_tiers = { flex = { factor = \"0.5\" }, priority = { price = { prompt = \"3\", completion = \"3\" } } }\n",
            one,
        ),
        model(
            "batched",
            "service_tiers = { batch = { factor = \"0.5\" } }\n",
            one,
        ),
        model("learner", "token_factor = 1100\n", one).replace("learn_factor = false\n", ""),
        "[[models]]\nid = \"unpriced\"\ncontext_window = 1000\n".to_owned(),
    ];
    let backup = [model(
        "shared",
        "upstream_id = \"shared-b\"\n",
        r#"prompt = "2", completion = "2""#,
    )];
    let claude = [
        model("claude", "features = { thinking = \"budget\" }\n", one),
        model(
            "claude-thinking",
            "features = { thinking = \"adaptive\", effort = [\"low\", \"high\"], sampling = false }\n",
            r#"prompt = "3", completion = "15", cached_prompt = "0.3", cache_write_5m = "3.75", cache_write_1h = "6""#,
        ),
    ];
    let (name, text) = file("messages", url, &claude);
    let text = text.replacen(
        "dialect = \"openai\"",
        "dialect = \"anthropic\"\nauth = { header = \"x-api-key\" }",
        1,
    );
    let mut files = vec![
        passing(keeping_files(file("mock", url, &mock)), PASSED_BY_MOCK),
        passing(file("backup", url, &backup), PASSED_BY_BACKUP),
        (name, text),
        google(url),
        cloud("vertex", url, "google", "gemini", ("gem-vertex", "")),
        cloud(
            "vertex-anthropic",
            url,
            "anthropic",
            "anthropic_vertex",
            (
                "claude-vertex",
                "upstream_id = \"claude-vertex@20251001\"\n",
            ),
        ),
    ];
    let (name, text) = file("signed", url, &[model("nova-signed", "", one)]);
    let spoken = "dialect = \"bedrock\"\nauth = \"aws\"";
    let text = text.replacen("dialect = \"openai\"", spoken, 1);
    files.push((
        name,
        text.replacen(KEY_VARIABLE, "AWS_BEARER_TOKEN_BEDROCK", 1),
    ));
    files.push(native("open", url, "stored", "native"));
    files.push(native("stateless", url, "stateless", "native-stateless"));
    files.extend(OTHER_DIALECTS.map(|(dialect, id)| {
        let (name, text) = file(dialect, url, &[model(id, "", one)]);
        let spoken = format!("dialect = \"{dialect}\"");
        (name, text.replacen("dialect = \"openai\"", &spoken, 1))
    }));
    files
}

/// Gemini as its own file has it: a model that always thinks, with a price for each kind of token.
fn google(url: &str) -> (&'static str, String) {
    let thinking = model(
        "gem-thinking",
        "features = { thinking = \"always\", effort = [\"low\", \"high\"] }\n",
        r#"prompt = "3", completion = "15", cached_prompt = "0.3", audio_prompt = "7", image_prompt = "4", image_completion = "60""#,
    );
    let (name, text) = file("google", url, &[thinking]);
    let spoken = "dialect = \"gemini\"\nauth = { header = \"x-goog-api-key\" }";
    (name, text.replacen("dialect = \"openai\"", spoken, 1))
}

/// A provider that has OpenAI's Responses: `id` costs what `m` does, `id-search` may search for a
/// hundredth of a credit, `id-tiered` has a price of its own for priority, and `id-hidden` reasons
/// out of sight.
fn native(name: &'static str, url: &str, kept: &str, id: &str) -> (&'static str, String) {
    let one = r#"prompt = "1", completion = "1""#;
    let models = [
        model(id, "", one),
        model(
            &format!("{id}-search"),
            "",
            &format!(r#"{one}, search = "0.01""#),
        ),
        model(&format!("{id}-hidden"), "hidden_output = true\n", one),
        model(
            &format!("{id}-tiered"),
            "service_tiers = { priority = { factor = \"3\" } }\n",
            one,
        ),
    ];
    let (name, text) = file(name, url, &models);
    let quirks = format!("[quirks]\nresponses = \"{kept}\"\n[[models]]\n");
    (name, text.replacen("[[models]]\n", &quirks, 1))
}

/// A publisher's model on Vertex AI, which costs what `m` does.
fn cloud(
    name: &'static str,
    url: &str,
    publisher: &str,
    dialect: &str,
    (id, more): (&str, &str),
) -> (&'static str, String) {
    let served = model(id, more, r#"prompt = "1", completion = "1""#);
    let text = format!(
        "name = \"{name}\"\ndialect = \"{dialect}\"\nauth = \"service_account\"\napi_key_env = \"{CLOUD_VARIABLE}\"\n\
         base_url = \"{url}/projects/p/locations/l/publishers/{publisher}\"\n{served}"
    );
    (name, text)
}

fn model(id: &str, more: &str, price: &str) -> String {
    format!(
        "[[models]]\nid = \"{id}\"\n{more}tokenizer = \"o200k_base\"\nlearn_factor = false\ncontext_window = 128000\n\
         max_output_tokens = 16384\nprice = {{ {price} }}\n"
    )
}

/// A provider that keeps files.
fn keeping_files((name, text): (&'static str, String)) -> (&'static str, String) {
    (name, format!("files = true\n{text}"))
}

/// A file with what it lets through.
fn passing((name, text): (&'static str, String), rules: &str) -> (&'static str, String) {
    (name, text + rules)
}

fn file(name: &'static str, url: &str, models: &[String]) -> (&'static str, String) {
    let text = format!(
        "name = \"{name}\"\ndialect = \"openai\"\nbase_url = \"{url}\"\napi_key_env = \"{KEY_VARIABLE}\"\n{}",
        models.concat()
    );
    (name, text)
}
