//! A provider file: its format, and the built-in ones.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    path::PathBuf,
};

use billing::{Price, PriceBook, PriceError, Rates, ServiceTier};
use dialect::{Dialect, Endpoint, Features, Quirks};
use serde::{Deserialize, Deserializer, de::Error as _};
use tokens::{Encoding, Factor, ImageRule, Tokenizer};

use crate::{
    credentials::AWS_KEYS,
    passthrough::Rules,
    price_file::{self, HoursFile, ServiceTierFile, TierFile, VersionFile},
    settings::{Finding, finding_of_toml},
};

include!(concat!(env!("OUT_DIR"), "/builtin_providers.rs"));

/// One provider, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderFile {
    /// Its name: lower case letters, digits and dashes.
    #[serde(deserialize_with = "provider_name")]
    pub name: String,
    /// Its name for people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it is; `${NAME}` is replaced from the environment.
    pub base_url: String,
    /// The variable with its key; absent: no key is sent.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// How the key is sent.
    #[serde(default)]
    pub auth: Auth,
    /// Where the facts come from.
    #[serde(default)]
    pub docs_url: Option<String>,
    /// The table that the prices come from.
    #[serde(default)]
    pub prices_from: Option<String>,
    /// The day they were taken.
    #[serde(default)]
    pub prices_taken: Option<String>,
    /// How it deviates from its dialect.
    #[serde(default)]
    pub quirks: Quirks,
    /// Where an endpoint is, if not at its usual path: a path after the base URL, or an address.
    #[serde(default, deserialize_with = "paths")]
    pub paths: BTreeMap<Endpoint, String>,
    /// What is passed through to it, beside what the gateway answers itself.
    #[serde(default)]
    pub passthrough: Rules,
    /// Whether it keeps files and works off batches as OpenAI does.
    #[serde(default)]
    pub files: bool,
    /// What it serves.
    #[serde(default)]
    pub models: Vec<ModelFile>,
}

/// How a provider's key is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    #[default]
    Bearer,
    /// The key alone in a header of this name.
    Header(String),
    /// A token of Google's cloud; the variable has the path of the credentials file, or its text.
    ServiceAccount,
    /// As Amazon's clients do it: the key as a bearer where there is one, else a signature with
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where it is set, `AWS_SESSION_TOKEN`.
    Aws,
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            Table { header: String },
        }
        let wrong = "auth is \"bearer\", \"service_account\", \"aws\" or { header = \"api-key\" }";
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(wrong))? {
            Written::Word(word) if word == "bearer" => Ok(Self::Bearer),
            Written::Word(word) if word == "service_account" => Ok(Self::ServiceAccount),
            Written::Word(word) if word == "aws" => Ok(Self::Aws),
            Written::Table { header }
                if !header.is_empty()
                    && header
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') =>
            {
                Ok(Self::Header(header))
            }
            Written::Word(_) | Written::Table { .. } => Err(D::Error::custom(wrong)),
        }
    }
}

/// One model, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// What clients ask for.
    #[serde(deserialize_with = "model_name")]
    pub id: String,
    /// What the provider calls it.
    #[serde(default)]
    pub upstream_id: Option<String>,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What it does; absent: it answers chats.
    #[serde(default = "chat_only")]
    pub endpoints: Vec<Endpoint>,
    /// How its text is cut into tokens.
    #[serde(default, deserialize_with = "encoding")]
    pub tokenizer: Option<Encoding>,
    /// The path of its own `tokenizer.json`, which its text is cut by instead.
    #[serde(default)]
    pub tokenizer_json: Option<PathBuf>,
    /// Its tokens for each thousand of the tokenizer's.
    #[serde(default, deserialize_with = "factor")]
    pub token_factor: Option<Factor>,
    /// Whether its answers correct that factor; left out: unless the tokenizer is the model's own.
    #[serde(default)]
    pub learn_factor: Option<bool>,
    /// Prompt and output together, in tokens.
    pub context_window: u32,
    /// Output at most, in tokens; absent: whatever the context window leaves.
    #[serde(default)]
    pub max_output_tokens: Option<u32>,
    /// Whether it reasons out of sight, so that its output cannot be watched.
    #[serde(default)]
    pub hidden_output: bool,
    /// What it can do, where the models of its dialect differ.
    #[serde(default)]
    pub features: Features,
    /// How its images are counted.
    #[serde(default, deserialize_with = "image_rule")]
    pub image_rule: Option<ImageRule>,
    /// Whether the provider says to move on.
    #[serde(default)]
    pub deprecated: bool,
    /// Credits per million tokens; absent: refused until the operator writes one.
    #[serde(default)]
    pub price: Option<Rates>,
    /// Other rates for long prompts.
    #[serde(default)]
    pub price_tiers: Vec<TierFile>,
    /// Prices of images that differ by size and quality.
    #[serde(default)]
    pub image_prices: Vec<ImagePriceFile>,
    /// Prices of service tiers, by their names.
    #[serde(default, deserialize_with = "price_file::service_tiers")]
    pub service_tiers: BTreeMap<ServiceTier, ServiceTierFile>,
    /// Prices of parts of the day.
    #[serde(default)]
    pub price_hours: Vec<HoursFile>,
    /// What holds from a day on, in place of all that.
    #[serde(default)]
    pub price_versions: Vec<VersionFile>,
    /// The day this price was taken, where it differs from the file's.
    #[serde(default)]
    pub price_date: Option<String>,
}

/// The price of images of one size and quality, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePriceFile {
    /// As clients ask for it, such as `1024x1024`.
    pub size: String,
    /// As clients ask for it, such as `hd`.
    pub quality: String,
    /// Whether a request that names neither means this one.
    #[serde(default)]
    pub default: bool,
    /// Its rates.
    pub price: Rates,
}

impl ProviderFile {
    /// Reads one file.
    ///
    /// # Errors
    /// What is wrong, where, and the mend.
    pub fn parse(place: &str, text: &str) -> Result<Self, Vec<Finding>> {
        let file: Self =
            toml::from_str(text).map_err(|error| vec![finding_of_toml(place, text, &error)])?;
        let findings = file.findings(place, text);
        if findings.is_empty() {
            Ok(file)
        } else {
            Err(findings)
        }
    }

    /// The variables that it needs to be served.
    #[must_use]
    pub fn variables(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.api_key_env.as_deref().into_iter().collect();
        let mut rest = self.base_url.as_str();
        while let Some((_, after)) = rest.split_once("${") {
            let (name, behind) = after.split_once('}').unwrap_or((after, ""));
            if !names.contains(&name) {
                names.push(name);
            }
            rest = behind;
        }
        names
    }

    /// The variables that it waits for, where `set` says which have a value.
    #[must_use]
    pub fn missing(&self, set: impl Fn(&str) -> bool) -> Vec<&str> {
        let signs = self.auth == Auth::Aws && AWS_KEYS.into_iter().all(&set);
        let key = self.api_key_env.as_deref().filter(|_| signs);
        let mut missing = self.variables();
        missing.retain(|name| !set(name) && Some(*name) != key);
        missing
    }

    /// The base URL with its variables replaced.
    #[must_use]
    pub fn resolved_base_url(&self, variable: impl Fn(&str) -> Option<String>) -> String {
        let mut url = String::new();
        let mut rest = self.base_url.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            let (name, behind) = after.split_once('}').unwrap_or((after, ""));
            url.push_str(before);
            let value = variable(name).unwrap_or_default();
            url.push_str(value.trim_end_matches('/'));
            rest = behind;
        }
        url.push_str(rest);
        at_vertex(url.trim_end_matches('/'))
    }

    fn findings(&self, place: &str, text: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut report = |line: Option<usize>, message: String| {
            findings.push(Finding {
                place: place.to_owned(),
                line,
                message,
            });
        };
        if !(self.base_url.starts_with("https://")
            || self.base_url.starts_with("http://")
            || self.base_url.starts_with("${"))
        {
            report(
                line_with(text, "base_url"),
                "base_url starts with https://, http:// or ${NAME}".into(),
            );
        }
        for quirk in self.quirks.without_meaning(self.dialect) {
            report(
                line_with(text, quirk),
                format!("the quirk {quirk} has no meaning in this dialect; remove it"),
            );
        }
        let mut seen = HashSet::new();
        for model in &self.models {
            let line = line_with(text, &format!("\"{}\"", model.id));
            for name in std::iter::once(&model.id).chain(&model.aliases) {
                if !seen.insert(name.as_str()) {
                    report(line, format!("model {name:?} is there twice; remove one"));
                }
            }
            if let Err(error) = model.book() {
                report(line, format!("model {:?}: {error}", model.id));
            }
            if model.endpoints.is_empty() {
                report(
                    line,
                    format!(
                        "model {:?}: endpoints is empty; leave it out for a chat model",
                        model.id
                    ),
                );
            }
            if model.endpoints.contains(&Endpoint::Completions) && self.dialect != Dialect::OpenAi {
                report(
                    line,
                    format!(
                        "model {:?}: completions are served in the dialect openai alone",
                        model.id
                    ),
                );
            }
            if model.max_output_tokens == Some(0) || model.context_window == 0 {
                report(
                    line,
                    format!("model {:?}: a limit of 0 tokens serves nobody", model.id),
                );
            }
        }
        findings
    }
}

impl ModelFile {
    /// One of this name and nothing else.
    #[must_use]
    pub(crate) fn named(id: String) -> Self {
        Self {
            id,
            upstream_id: None,
            aliases: Vec::new(),
            endpoints: Vec::new(),
            tokenizer: None,
            tokenizer_json: None,
            token_factor: None,
            learn_factor: Some(false),
            context_window: 1,
            max_output_tokens: None,
            hidden_output: false,
            features: Features::default(),
            image_rule: None,
            deprecated: false,
            price: None,
            price_tiers: Vec::new(),
            image_prices: Vec::new(),
            service_tiers: BTreeMap::new(),
            price_hours: Vec::new(),
            price_versions: Vec::new(),
            price_date: None,
        }
    }

    /// Its prices; an empty book where it has none.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn book(&self) -> Result<PriceBook, PriceError> {
        price_file::book(&self.versions())
    }

    /// The price that holds before every version with a beginning, where there is one.
    ///
    /// # Errors
    /// As [`ModelFile::book`].
    pub fn price(&self) -> Result<Option<Price>, PriceError> {
        let base = self.price.as_ref();
        base.map(|base| price_file::price(base, &self.price_tiers))
            .transpose()
    }

    /// The operator's own price takes the place of what is written here: all of it, or from a day on.
    pub fn override_price(&mut self, version: VersionFile) {
        if version.valid_from.is_none() {
            self.price = Some(version.price);
            self.price_tiers = version.price_tiers;
            self.service_tiers = version.service_tiers;
            self.price_hours = version.price_hours;
            self.price_versions.clear();
        } else {
            // From its day on nothing of the provider's file holds.
            self.price_versions
                .retain(|other| other.valid_from < version.valid_from);
            self.price_versions.push(version);
        }
    }

    fn versions(&self) -> Vec<VersionFile> {
        let base = self.price.as_ref().map(|price| VersionFile {
            valid_from: None,
            price: price.clone(),
            price_tiers: self.price_tiers.clone(),
            service_tiers: self.service_tiers.clone(),
            price_hours: self.price_hours.clone(),
        });
        base.into_iter()
            .chain(self.price_versions.iter().cloned())
            .collect()
    }

    /// Its tokenizer, where it has no file of its own for that.
    #[must_use]
    pub fn tokenizer(&self) -> Tokenizer {
        Tokenizer::new(
            self.tokenizer.unwrap_or(Encoding::O200kBase),
            self.token_factor.unwrap_or(Factor::EXACT),
        )
    }

    /// Whether its answers correct the factor.
    #[must_use]
    pub fn learns_factor(&self) -> bool {
        self.learn_factor
            .unwrap_or_else(|| !self.tokenizer_is_its_own())
    }

    /// Whether it is known to be cut into tokens by just that tokenizer.
    fn tokenizer_is_its_own(&self) -> bool {
        let name = self.upstream_id.as_deref().unwrap_or(&self.id);
        let known = name.rsplit('/').next().and_then(Tokenizer::for_model);
        let tokenizer = self.tokenizer();
        tokenizer.factor() == Factor::EXACT
            && (self.tokenizer_json.is_some() || known == Some(tokenizer.encoding()))
    }

    /// Output at most, in tokens.
    #[must_use]
    pub fn output_tokens_max(&self) -> u32 {
        self.max_output_tokens
            .unwrap_or(self.context_window)
            .min(self.context_window)
    }
}

/// Vertex AI is at `REGION-aiplatform.googleapis.com`, but for what spans regions. Source: Google's
/// guide "Vertex AI locations", parts "Global endpoint" and "Multi-region endpoints".
fn at_vertex(url: &str) -> String {
    const REGIONAL: &str = "-aiplatform.googleapis.com/";
    let split = url
        .strip_prefix("https://")
        .and_then(|rest| rest.split_once(REGIONAL));
    match split {
        Some(("global", rest)) => format!("https://aiplatform.googleapis.com/{rest}"),
        Some((place @ ("us" | "eu"), rest)) => {
            format!("https://aiplatform.{place}.rep.googleapis.com/{rest}")
        }
        Some(_) | None => url.to_owned(),
    }
}

/// The line, from 1, on which `part` first stands.
fn line_with(text: &str, part: &str) -> Option<usize> {
    text.lines()
        .position(|line| line.contains(part))
        .map(|i| i + 1)
}

fn chat_only() -> Vec<Endpoint> {
    vec![Endpoint::Chat]
}

fn paths<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Endpoint, String>, D::Error> {
    let paths = BTreeMap::<Endpoint, String>::deserialize(deserializer)?;
    if paths.contains_key(&Endpoint::Chat) {
        return Err(D::Error::custom("the path of chats is `path` in [quirks]"));
    }
    let sound = |path: &String| {
        let begins = ["/", "https://", "http://"];
        begins.iter().any(|begin| path.starts_with(begin))
            && path.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match paths.values().find(|path| !sound(path)) {
        Some(_) => Err(D::Error::custom(
            "a path begins with a slash, an address with https:// or http://, and neither has spaces",
        )),
        None => Ok(paths),
    }
}

fn provider_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let fine = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fine {
        Ok(name)
    } else {
        Err(D::Error::custom(
            "a provider's name is lower case letters, digits and dashes, at most 64",
        ))
    }
}

fn model_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let fine = !name.is_empty() && name.len() <= 256 && name.bytes().all(|b| b.is_ascii_graphic());
    if fine {
        Ok(name)
    } else {
        Err(D::Error::custom(
            "a model's id is printable ASCII without spaces, at most 256 characters",
        ))
    }
}

fn encoding<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Encoding>, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map(Some).map_err(D::Error::custom)
}

fn factor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Factor>, D::Error> {
    let thousandths = u32::deserialize(deserializer)?;
    Factor::new(thousandths).map(Some).map_err(D::Error::custom)
}

fn image_rule<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ImageRule>, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map(Some).map_err(D::Error::custom)
}

/// The provider file of the demo: the scripted provider at this address, priced so that the
/// demo key's credits last a while.
#[must_use]
pub fn demo_file(url: &str) -> String {
    let mut text = String::new();
    let price = billing::Credits::from_nanos(1_000_000_000);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "name = \"demo\"\ndisplay_name = \"Demo\"\ndialect = \"openai\"\nbase_url = \"{url}\"\n\
         [[models]]\nid = \"demo\"\ncontext_window = 128000\nmax_output_tokens = 16384\n\
         price = {{ prompt = \"{price}\", completion = \"10\" }}\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = r#"
name = "acme"
dialect = "openai"
base_url = "https://api.acme.example/v1"
api_key_env = "ACME_API_KEY"
[[models]]
id = "acme-large"
context_window = 128000
max_output_tokens = 16384
price = { prompt = "2.50", completion = "10.00", cached_prompt = "1.25" }
"#;

    fn messages(text: &str) -> Vec<String> {
        match ProviderFile::parse("acme.toml", text) {
            Ok(_) => Vec::new(),
            Err(findings) => findings.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_contracts_example_is_read() {
        let file = ProviderFile::parse("acme.toml", ACME).unwrap();
        assert_eq!(file.auth, Auth::Bearer);
        assert_eq!(file.variables(), ["ACME_API_KEY"]);
        assert!(file.models[0].price().unwrap().is_some());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, part) in [
            (
                "dialect = \"openai\"",
                "dialect = \"klingon\"",
                "acme.toml:3: unknown variant",
            ),
            ("context_window", "context_windwo", "unknown field"),
            (
                "price = { prompt = \"2.50\"",
                "price = { prompt = 2.50",
                "acme.toml:10: invalid type",
            ),
            ("\"2.50\"", "\"-2.50\"", "never negative"),
            ("https://api", "ftp://api", "acme.toml:4: base_url starts"),
            (
                "id = \"acme-large\"",
                "id = \"acme-large\"\naliases = [\"acme-large\"]",
                "twice",
            ),
            (
                "id = \"acme-large\"",
                "id = \"acme large\"",
                "printable ASCII",
            ),
            (
                "id = \"acme-large\"",
                "id = \"acme-large\"\nendpoints = [\"embedings\"]",
                "unknown variant",
            ),
            (
                "id = \"acme-large\"",
                "id = \"acme-large\"\nendpoints = []",
                "endpoints is empty",
            ),
            (
                "[[models]]",
                "paths = { rerank = \"v2\" }\n[[models]]",
                "begins with a slash",
            ),
            (
                "[[models]]",
                "paths = { chat = \"/v2\" }\n[[models]]",
                "[quirks]",
            ),
            (
                "id = \"acme-large\"",
                "id = \"x\"\ntokenizer = \"p9000\"",
                "o200k_base",
            ),
        ] {
            let text = ACME.replace(from, to);
            assert_ne!(text, ACME, "{from}");
            let messages = messages(&text);
            assert!(
                messages.first().is_some_and(|m| m.contains(part)),
                "{to}: {messages:?}"
            );
        }
    }

    #[test]
    fn a_quirk_of_another_dialect_is_told() {
        let text = ACME.replace("\"openai\"", "\"anthropic\"");
        assert!(messages(&text).is_empty());
        let odd = text.replace("[[models]]", "[quirks]\nusage_how = \"never\"\n[[models]]");
        assert_eq!(
            messages(&odd),
            ["acme.toml:7: the quirk usage_how has no meaning in this dialect; remove it"]
        );
    }

    #[test]
    fn a_pair_of_keys_stands_in_for_a_key() {
        let text = ACME.replace("[[models]]", "auth = \"aws\"\n[[models]]");
        let file = ProviderFile::parse("acme.toml", &text).unwrap();
        let missing = |names: &[&str]| file.missing(|name| names.contains(&name)).len();
        assert_eq!(missing(&["ACME_API_KEY"]), 0);
        assert_eq!(missing(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]), 0);
        assert_eq!(missing(&["AWS_ACCESS_KEY_ID"]), 1);
        let bearer = ProviderFile::parse("acme.toml", ACME).unwrap();
        assert_eq!(
            bearer.missing(|name| name != "ACME_API_KEY"),
            ["ACME_API_KEY"]
        );
    }

    #[test]
    fn variables_in_the_address_are_replaced() {
        let text = ACME.replace(
            "https://api.acme.example/v1",
            "${ACME_BASE_URL}/v1/${ACME_TEAM}/",
        );
        let file = ProviderFile::parse("acme.toml", &text).unwrap();
        assert_eq!(
            file.variables(),
            ["ACME_API_KEY", "ACME_BASE_URL", "ACME_TEAM"]
        );
        let value = |name: &str| {
            Some(match name {
                "ACME_BASE_URL" => "http://127.0.0.1:9/".to_owned(),
                _ => "t".to_owned(),
            })
        };
        assert_eq!(file.resolved_base_url(value), "http://127.0.0.1:9/v1/t");
    }

    #[test]
    fn a_place_of_googles_cloud_is_an_address() {
        let (_, text) = BUILTIN_PROVIDERS
            .iter()
            .find(|(name, _)| *name == "vertex.toml")
            .unwrap();
        let file = ProviderFile::parse("vertex.toml", text).unwrap();
        for (place, host) in [
            ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
            ("global", "aiplatform.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
        ] {
            let value = |name: &str| match name {
                "GOOGLE_CLOUD_PROJECT" => Some("acme".to_owned()),
                _ => Some(place.to_owned()),
            };
            assert_eq!(file.variables().len(), 3);
            assert_eq!(
                file.resolved_base_url(value),
                format!("https://{host}/v1/projects/acme/locations/{place}/publishers/google")
            );
        }
    }

    #[test]
    fn more_than_1500_models_have_a_price() {
        let priced = |text: &str| {
            let file = ProviderFile::parse("built-in", text).unwrap();
            let books = file.models.iter().map(|model| model.book().unwrap());
            books.filter(|book| book.offers().count() > 0).count()
        };
        let count: usize = BUILTIN_PROVIDERS.iter().map(|(_, text)| priced(text)).sum();
        assert!(count >= 1_500, "{count}");
    }

    #[test]
    fn every_built_in_file_is_sound() {
        assert!(BUILTIN_PROVIDERS.len() >= 3);
        for (name, text) in BUILTIN_PROVIDERS {
            let file = ProviderFile::parse(name, text).unwrap_or_else(|f| panic!("{f:?}"));
            assert_eq!(format!("{}.toml", file.name), *name);
        }
    }
}
