//! What a start prints: where the gateway is, and on the first one the keys and two snippets to paste.

use std::{fmt::Write as _, net::SocketAddr};

use crate::catalogue::Catalogue;

/// The text of a start.
#[derive(Clone)]
pub struct Welcome(String);

impl Welcome {
    /// The text for these facts. Secrets are there only on the start that made them.
    #[must_use]
    pub fn new(
        address: SocketAddr,
        store: &str,
        catalogue: &Catalogue,
        demo: bool,
        admin_secret: Option<&str>,
        demo_secret: Option<&str>,
    ) -> Self {
        let mut text = String::new();
        let url = format!("http://{address}");
        let providers: Vec<&str> = catalogue.providers().iter().map(|p| &*p.name).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "Tollway listens on {url} and keeps its books in {store}."
        );
        let _ = writeln!(
            text,
            "It serves {} {} of {}.",
            catalogue.models().len(),
            if catalogue.models().len() == 1 {
                "model"
            } else {
                "models"
            },
            if providers.is_empty() {
                "no provider".into()
            } else {
                providers.join(", ")
            }
        );
        if demo {
            let _ = writeln!(
                text,
                "The model \"demo\" is a stand-in that streams words. Set a provider's key, such as OPENAI_API_KEY, and start again to serve real ones."
            );
        }
        if let Some(secret) = admin_secret {
            let _ = writeln!(text, "\nAdmin key (shown once, keep it safe):  {secret}");
        }
        if let Some(secret) = demo_secret {
            let model = if demo { "demo" } else { cheapest(catalogue) };
            text.push_str(&snippets(&url, secret, model));
        }
        Self(text)
    }

    /// Prints it on standard output: this, not the log, is where a person looks.
    #[expect(
        clippy::print_stdout,
        reason = "the one text meant for a person at a terminal"
    )]
    pub fn print(&self) {
        println!("{}", self.0);
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// The model for the first try: the cheapest that shows its output.
fn cheapest(catalogue: &Catalogue) -> &str {
    catalogue
        .models()
        .iter()
        .filter(|model| !model.deprecated && !model.hidden_output)
        .filter_map(|model| model.price.as_ref().map(|(price, _)| (price.base(), model)))
        .filter(|(rates, _)| rates.completion.is_positive())
        .min_by_key(|(rates, _)| rates.prompt.saturating_add(rates.completion))
        .map_or("MODEL", |(_, model)| &model.full_name)
}

fn snippets(url: &str, secret: &str, model: &str) -> String {
    format!(
        r#"
A key with credits to try it (shown once):  {secret}

curl -N {url}/v1/chat/completions \
  -H "Authorization: Bearer {secret}" \
  -H "Content-Type: application/json" \
  -d '{{"model": "{model}", "stream": true, "stream_options": {{"include_usage": true}}, "messages": [{{"role": "user", "content": "Tell me something nice."}}]}}'

# pip install openai
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{secret}")
answer = client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Tell me something nice."}}])
print(answer.choices[0].message.content, answer.usage)
"#
    )
}
