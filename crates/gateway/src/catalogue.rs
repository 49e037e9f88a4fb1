//! The catalogue: which models are served, by whom and at what price, and the route of a model name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
    time::Instant,
};

use billing::{Credits, Price, PriceBook, PriceId};
use dialect::{Dialect, Endpoint, Features, Quirks};
use http::Uri;
use jiff::Timestamp;
use reqwest::Url;
use tokens::{
    AUDIO_TOKENS_PER_SECOND, CLAUDE_TOOL_TOKENS, GEMINI_AUDIO_TOKENS_PER_SECOND, ImageRule,
    PromptRules, Side, Tokenizer,
};

use crate::{
    credentials::Credentials,
    learning::Learning,
    own_tokenizer,
    passthrough::Passage,
    provider_file::{ModelFile, ProviderFile},
    settings::{Finding, RouteSetting},
};

/// A provider that is served.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name.
    pub name: Arc<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it is, without a slash at the end.
    pub base_url: String,
    /// How requests to it are authenticated.
    pub credentials: Credentials,
    /// How it deviates from its dialect.
    pub quirks: Arc<Quirks>,
    /// Whether it keeps files and works off batches.
    pub files: bool,
    /// Where endpoints are that are not at their usual path.
    pub paths: Arc<BTreeMap<Endpoint, String>>,
    /// The path that was asked for first and its address: for most providers it is the only one.
    first_address: OnceLock<(String, Uri)>,
}

impl Provider {
    /// Where an endpoint is: a path after the base URL, or an address.
    #[must_use]
    pub fn path(&self, endpoint: Endpoint) -> &str {
        self.paths
            .get(&endpoint)
            .map_or(endpoint.path(), String::as_str)
    }

    /// The address of a plain path below the base URL, with a query. `None` where it is none.
    #[must_use]
    pub fn address_of(&self, path: &str, query: Option<&str>) -> Option<Url> {
        let mut url = Url::parse(&format!("{}{path}", self.base_url)).ok()?;
        if query.is_some() {
            url.set_query(query);
        }
        Some(url)
    }

    /// The address of a path after the base URL, or of an address that the provider's file names in
    /// place of one. Parsing an address costs as much as a good part of a request.
    /// `None` where it is none.
    #[must_use]
    pub fn address(&self, path: &str) -> Option<Uri> {
        let parse = || {
            let url = if path.starts_with('/') {
                Url::parse(&format!("{}{path}", self.base_url))
            } else {
                Url::parse(path)
            };
            Uri::try_from(String::from(url.ok()?)).ok()
        };
        match self.first_address.get() {
            Some((first, address)) if first == path => Some(address.clone()),
            Some(_) => parse(),
            None => {
                let address = parse()?;
                // Where two come first at once, either will do.
                let _ = self.first_address.set((path.to_owned(), address.clone()));
                Some(address)
            }
        }
    }
}

/// A model of a provider.
#[derive(Clone, Debug)]
pub struct Model {
    /// What clients ask for.
    pub id: Arc<str>,
    /// `provider/id`.
    pub full_name: Arc<str>,
    /// What the provider calls it.
    pub upstream_id: String,
    /// Who serves it.
    pub provider: Arc<Provider>,
    /// What it does.
    pub endpoints: Vec<Endpoint>,
    /// How its prompts are counted where nothing was learned; see [`Model::prompt_rules`].
    pub rules: PromptRules,
    /// How its output is counted where nothing was learned; see [`Model::output_tokenizer`].
    pub tokenizer: Tokenizer,
    /// What its answers have taught about its tokenizer.
    pub learning: Arc<Learning>,
    /// Prompt and output together, in tokens.
    pub context_window: u32,
    /// Output at most, in tokens.
    pub output_tokens_max: u32,
    /// Whether it reasons out of sight.
    pub hidden_output: bool,
    /// What it can do.
    pub features: Features,
    /// Whether the provider says to move on.
    pub deprecated: bool,
    /// Its prices: versions, hours, service tiers. Requests are charged by [`crate::prices`].
    pub prices: PriceBook,
    /// Its plain price when the program started and the version of it, for lists; `None`: refused
    /// until one is written.
    pub price: Option<(Arc<Price>, PriceId)>,
    /// Prices of images that differ by size and quality.
    pub image_prices: Vec<ImagePrice>,
}

/// The price of images of one size and quality.
#[derive(Clone, Debug)]
pub struct ImagePrice {
    size: String,
    quality: String,
    default: bool,
    price: (Arc<Price>, PriceId),
}

impl Model {
    /// The price of a request for images of a size and a quality; what a request does not name is
    /// that of the default. What has no price of its own costs what the dearest costs. `None` where
    /// the model has the same price for all.
    #[must_use]
    pub fn image_price(
        &self,
        size: Option<&str>,
        quality: Option<&str>,
    ) -> Option<&(Arc<Price>, PriceId)> {
        let default = self.image_prices.iter().find(|one| one.default);
        let size = size.or(default.map(|one| one.size.as_str()));
        let quality = quality.or(default.map(|one| one.quality.as_str()));
        let exact = self
            .image_prices
            .iter()
            .find(|one| Some(one.size.as_str()) == size && Some(one.quality.as_str()) == quality);
        let dearest = || {
            let image = |one: &&ImagePrice| one.price.0.base().image.unwrap_or(Credits::ZERO);
            self.image_prices.iter().max_by_key(image)
        };
        exact.or_else(dearest).map(|one| &one.price)
    }

    /// Every price that it may be charged at.
    pub fn all_prices(&self) -> impl Iterator<Item = (&Arc<Price>, PriceId)> {
        let offers = self.prices.offers().flat_map(|offer| offer.all());
        let of_images = self.image_prices.iter();
        offers
            .map(|(_, priced)| (&priced.price, priced.id))
            .chain(of_images.map(|one| (&one.price.0, one.price.1)))
    }
}

impl Model {
    /// How its prompts are counted, as far as that is known.
    #[must_use]
    pub fn prompt_rules(&self) -> PromptRules {
        self.rules.with_factor(self.learning.factor(Side::Prompt))
    }

    /// How its output is counted, as far as that is known.
    #[must_use]
    pub fn output_tokenizer(&self) -> Tokenizer {
        let factor = self.learning.factor(Side::Completion);
        self.tokenizer.with_factor(factor)
    }
}

/// A provider that is configured but not served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// Its name.
    pub name: String,
    /// The environment variables it waits for.
    pub missing: Vec<String>,
}

/// Everything that is served.
#[derive(Debug, Default)]
pub struct Catalogue {
    models: Vec<Arc<Model>>,
    by_name: HashMap<String, Vec<Arc<Model>>>,
    passages: Vec<Passage>,
    unserved: Vec<Unserved>,
}

impl Catalogue {
    /// The catalogue of these files; what is wrong goes to `findings`.
    pub fn new(
        files: Vec<(String, ProviderFile)>,
        routes: &[RouteSetting],
        variable: impl Fn(&str) -> Option<String>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut catalogue = Self::default();
        for (place, file) in files {
            let missing: Vec<String> = file
                .missing(|name| variable(name).is_some_and(|value| !value.is_empty()))
                .into_iter()
                .map(str::to_owned)
                .collect();
            if missing.is_empty() {
                if let Err(message) = catalogue.add(&file, &variable) {
                    findings.push(Finding {
                        place,
                        line: None,
                        message,
                    });
                }
            } else {
                catalogue.unserved.push(Unserved {
                    name: file.name,
                    missing,
                });
            }
        }
        catalogue.index();
        catalogue.add_routes(routes, findings);
        catalogue
    }

    /// What serves a model name, in order; empty where nothing does.
    #[must_use]
    pub fn resolve(&self, name: &str) -> &[Arc<Model>] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every model, by provider and id.
    #[must_use]
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// Every name that clients can ask for, with what serves it first, in the order of names.
    #[must_use]
    pub fn names(&self) -> Vec<(&str, &Arc<Model>)> {
        let sorted: BTreeMap<&str, &Arc<Model>> = self
            .by_name
            .iter()
            .filter_map(|(name, models)| models.first().map(|model| (name.as_str(), model)))
            .collect();
        sorted.into_iter().collect()
    }

    /// Everything that requests are charged by: every model, and what stands in for one where a
    /// request is passed through.
    pub fn priced(&self) -> impl Iterator<Item = &Arc<Model>> {
        let passed = self.passages.iter().filter_map(|one| one.model.as_ref());
        self.models.iter().chain(passed)
    }

    /// What is passed through, by provider.
    #[must_use]
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// Providers that wait for a variable.
    #[must_use]
    pub fn unserved(&self) -> &[Unserved] {
        &self.unserved
    }

    /// Providers that are served, in the order of names.
    #[must_use]
    pub fn providers(&self) -> Vec<&Arc<Provider>> {
        let mut providers: Vec<&Arc<Provider>> = self.models.iter().map(|m| &m.provider).collect();
        providers.sort_by(|a, b| a.name.cmp(&b.name));
        providers.dedup_by(|a, b| a.name == b.name);
        providers
    }

    fn add(
        &mut self,
        file: &ProviderFile,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        let credentials = Credentials::of(file, variable)?;
        let base_url = file.resolved_base_url(variable);
        if Url::parse(&base_url).is_err() {
            return Err("base_url is not an address once its variables are replaced".into());
        }
        let provider = Arc::new(Provider {
            name: file.name.as_str().into(),
            dialect: file.dialect,
            base_url,
            credentials,
            quirks: Arc::new(file.quirks.clone()),
            files: file.files,
            paths: Arc::new(file.paths.clone()),
            first_address: OnceLock::new(),
        });
        for model in &file.models {
            let served = Arc::new(served(&provider, model)?);
            for alias in &model.aliases {
                let names = [alias.clone(), format!("{}/{alias}", file.name)];
                for name in names {
                    self.by_name.entry(name).or_default().push(served.clone());
                }
            }
            self.models.push(served);
        }
        self.passages.extend(Passage::of(&provider, file)?);
        Ok(())
    }

    /// Names every model by its id and by `provider/id`. What one provider calls
    /// `provider/id` may be what another calls its id (OpenRouter does): the provider's own
    /// name comes first.
    fn index(&mut self) {
        for model in &self.models {
            let by_id = self.by_name.entry(model.id.to_string()).or_default();
            by_id.push(model.clone());
        }
        for list in self.by_name.values_mut() {
            list.sort_by_key(|model| (asking_price(model), model.full_name.clone()));
        }
        for model in &self.models {
            let by_full_name = self.by_name.entry(model.full_name.to_string()).or_default();
            by_full_name.retain(|other| !Arc::ptr_eq(other, model));
            by_full_name.insert(0, model.clone());
        }
    }

    fn add_routes(&mut self, routes: &[RouteSetting], findings: &mut Vec<Finding>) {
        for route in routes {
            let mut targets = Vec::new();
            for target in &route.targets {
                match self.models.iter().find(|m| *m.full_name == **target) {
                    Some(model) if route.drop_unsupported => targets.push(lenient(model)),
                    Some(model) => targets.push(model.clone()),
                    None => findings.push(Finding {
                        place: "tollway.toml".into(),
                        line: None,
                        message: format!(
                            "route {:?}: no provider serves {target:?}; GET /admin/v1/models lists what is served",
                            route.model
                        ),
                    }),
                }
            }
            if !targets.is_empty() {
                self.by_name.insert(route.model.clone(), targets);
            }
        }
    }
}

/// The same model, whose provider leaves out what it cannot do.
fn lenient(model: &Arc<Model>) -> Arc<Model> {
    let mut quirks = (*model.provider.quirks).clone();
    quirks.drop_unsupported = true;
    let provider = Provider {
        quirks: Arc::new(quirks),
        ..(*model.provider).clone()
    };
    Arc::new(Model {
        provider: Arc::new(provider),
        ..(**model).clone()
    })
}

/// Cheapest first; a model without a price last.
fn asking_price(model: &Model) -> Credits {
    model.price.as_ref().map_or(Credits::MAX, |(price, _)| {
        let base = price.base();
        base.prompt.saturating_add(base.completion)
    })
}

pub(crate) fn served(provider: &Arc<Provider>, model: &ModelFile) -> Result<Model, String> {
    let prices = model
        .book()
        .map_err(|error| format!("model {:?}: {error}", model.id))?;
    let price = prices
        .at(Timestamp::now().as_second())
        .map(|offer| offer.standard())
        .map(|priced| (Arc::clone(&priced.price), priced.id));
    let tokenizer = own_tokenizer::of(model)?;
    let upstream_id = model.upstream_id.as_deref().unwrap_or(&model.id);
    let image_rule = model
        .image_rule
        .or_else(|| ImageRule::for_model(upstream_id))
        .unwrap_or(ImageRule::Gpt4o);
    let (audio_per_second, tool_instructions) = of_the_family(image_rule);
    let id: Arc<str> = model.id.as_str().into();
    let learning = Learning::new(
        provider.name.clone(),
        id.clone(),
        tokenizer,
        model.learns_factor(),
        Instant::now(),
    );
    Ok(Model {
        id,
        learning: Arc::new(learning),
        full_name: format!("{}/{}", provider.name, model.id).into(),
        upstream_id: model
            .upstream_id
            .clone()
            .unwrap_or_else(|| model.id.clone()),
        provider: provider.clone(),
        endpoints: model.endpoints.clone(),
        // A prompt longer than the window is refused by the provider, whatever it would count.
        rules: PromptRules::new(tokenizer, image_rule)
            .with_context_window(u64::from(model.context_window))
            .with_audio_per_second(audio_per_second)
            .with_tool_instructions(tool_instructions),
        tokenizer,
        context_window: model.context_window,
        output_tokens_max: model.output_tokens_max(),
        hidden_output: model.hidden_output,
        features: model.features.clone(),
        deprecated: model.deprecated,
        prices,
        price,
        image_prices: image_prices(model)?,
    })
}

/// The prices of a model's images that differ by size and quality.
fn image_prices(model: &ModelFile) -> Result<Vec<ImagePrice>, String> {
    model
        .image_prices
        .iter()
        .map(|one| {
            let price = Price::new(one.price.clone(), Vec::new())?;
            let id = price.id()?;
            Ok(ImagePrice {
                size: one.size.clone(),
                quality: one.quality.clone(),
                default: one.default,
                price: (Arc::new(price), id),
            })
        })
        .collect::<Result<_, billing::PriceError>>()
        .map_err(|error| format!("model {:?}: image_prices: {error}", model.id))
}

/// What the rules of a family of models have beside their pictures: tokens for a second of sound, and
/// for what the model is told about tools.
const fn of_the_family(image_rule: ImageRule) -> (u64, u64) {
    match image_rule {
        ImageRule::Gemini | ImageRule::Gemini3 => (GEMINI_AUDIO_TOKENS_PER_SECOND, 0),
        ImageRule::Claude | ImageRule::ClaudeLarge => (AUDIO_TOKENS_PER_SECOND, CLAUDE_TOOL_TOKENS),
        ImageRule::Gpt4o
        | ImageRule::Gpt4oMini
        | ImageRule::Gpt5
        | ImageRule::O1
        | ImageRule::ComputerUse
        | ImageRule::Patch162
        | ImageRule::Patch172
        | ImageRule::Patch246 => (AUDIO_TOKENS_PER_SECOND, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, key: &str, models: &[(&str, &str)]) -> (String, ProviderFile) {
        let mut text = format!(
            "name = \"{name}\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_env = \"{key}\"\n"
        );
        for (id, price) in models {
            text.push_str(&format!(
                "[[models]]\nid = \"{id}\"\ncontext_window = 1000\nprice = {{ prompt = \"{price}\", completion = \"{price}\" }}\n"
            ));
        }
        (name.into(), ProviderFile::parse(name, &text).unwrap())
    }

    fn catalogue(routes: &[RouteSetting]) -> (Catalogue, Vec<Finding>) {
        let files = vec![
            file("dear", "K", &[("m", "5"), ("only", "1")]),
            file("cheap", "K", &[("m", "2")]),
            file("router", "K", &[("dear/m", "9")]),
            file("absent", "NOT_SET", &[("x", "1")]),
        ];
        let mut findings = Vec::new();
        let variable = |name: &str| (name == "K").then(|| "secret".to_owned());
        let catalogue = Catalogue::new(files, routes, variable, &mut findings);
        (catalogue, findings)
    }

    fn names(catalogue: &Catalogue, model: &str) -> Vec<String> {
        catalogue
            .resolve(model)
            .iter()
            .map(|m| m.full_name.to_string())
            .collect()
    }

    #[test]
    fn a_bare_id_goes_to_the_cheapest_first() {
        let (catalogue, findings) = catalogue(&[]);
        assert!(findings.is_empty());
        assert_eq!(names(&catalogue, "m"), ["cheap/m", "dear/m"]);
        assert_eq!(names(&catalogue, "only"), ["dear/only"]);
        assert!(names(&catalogue, "nothing").is_empty());
    }

    #[test]
    fn a_full_name_goes_to_its_provider_before_anybody_who_uses_it_as_an_id() {
        let (catalogue, _) = catalogue(&[]);
        assert_eq!(names(&catalogue, "dear/m"), ["dear/m", "router/dear/m"]);
        assert_eq!(names(&catalogue, "router/dear/m"), ["router/dear/m"]);
    }

    #[test]
    fn a_provider_without_its_variable_is_not_served() {
        let (catalogue, _) = catalogue(&[]);
        assert!(names(&catalogue, "x").is_empty());
        assert_eq!(catalogue.unserved()[0].missing, ["NOT_SET"]);
    }

    #[test]
    fn routes_replace_and_must_exist() {
        let route = |model: &str, target: &str| RouteSetting {
            model: model.into(),
            targets: vec![target.into()],
            drop_unsupported: false,
        };
        let (catalogue, findings) = catalogue(&[route("best", "dear/m"), route("m", "no/m")]);
        assert_eq!(names(&catalogue, "best"), ["dear/m"]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("no/m"));
    }

    #[test]
    fn a_route_may_leave_out_what_a_target_cannot_do() {
        let route = RouteSetting {
            model: "lenient".into(),
            targets: vec!["dear/m".into()],
            drop_unsupported: true,
        };
        let (catalogue, _) = catalogue(&[route]);
        let lenient = |name: &str| catalogue.resolve(name)[0].provider.quirks.drop_unsupported;
        assert!(lenient("lenient"));
        assert!(!lenient("dear/m"));
    }

    /// What CONTRIBUTING shows is what it says: a provider in under ten lines, and no Rust.
    #[test]
    fn the_provider_that_contributing_adds_is_served() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../CONTRIBUTING.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        let (_, rest) = guide.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        assert!(text.lines().count() < 10, "{text}");
        let file = ProviderFile::parse("acme.toml", text).unwrap();
        let mut findings = Vec::new();
        let set = |name: &str| (name == "ACME_API_KEY").then(|| "secret".to_owned());
        let catalogue = Catalogue::new(vec![("acme.toml".into(), file)], &[], set, &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        for name in ["acme-large", "acme/acme-large"] {
            assert_eq!(names(&catalogue, name), ["acme/acme-large"]);
            assert!(catalogue.resolve(name)[0].price.is_some());
        }
    }

    #[test]
    fn a_key_never_shows_in_debug_output() {
        let (catalogue, _) = catalogue(&[]);
        assert!(!format!("{catalogue:?}").contains("secret"));
    }
}
