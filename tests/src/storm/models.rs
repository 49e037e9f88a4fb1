//! Models with every way for a provider to answer, and prices that do not come out even.

/// What a provider says of the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// What it sent.
    Truth,
    /// Nothing.
    Nothing,
    /// A thousand more than it may have sent.
    TooMuch,
    /// What it sent, and for the prompt what the client's own tokenizer says.
    Exactly,
}

/// A model of the storm.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// What clients ask for.
    pub id: &'static str,
    upstream: &'static str,
    price: &'static str,
    pub(super) says: Says,
    /// What it sends at most without a limit.
    pub(super) words_max: u64,
    /// How often it is asked, beside the others.
    weight: u64,
}

/// More than the provider's built-in text has.
const BUILT_IN_MAX: u64 = 100;
/// What the provider reports for the usual prompt: its two words, and three for a message.
pub(super) const REPORTED_PROMPT: u64 = 5;
/// Added by a provider that says too much.
pub(super) const TOO_MUCH: u64 = 1_000;

const fn model(
    id: &'static str,
    upstream: &'static str,
    price: &'static str,
    says: Says,
    words_max: u64,
    weight: u64,
) -> Model {
    Model {
        id,
        upstream,
        price,
        says,
        words_max,
        weight,
    }
}

const EVEN: &str = r#"prompt = "1", completion = "1""#;
const ODD: &str = r#"prompt = "0.000001", completion = "0.333333333""#;
const FEE: &str = r#"prompt = "1", completion = "3", request = "0.000017""#;
const DEAR: &str = r#"prompt = "7.000000001", completion = "11.111111111""#;

/// All of them.
const MODELS: [Model; 9] = [
    model("short", "mock-words-12", EVEN, Says::Truth, 12, 30),
    model("odd", "mock-words-40", ODD, Says::Truth, 40, 20),
    model("long", "mock-words-150", DEAR, Says::Truth, 150, 15),
    model(
        "silent",
        "mock-no-usage",
        DEAR,
        Says::Nothing,
        BUILT_IN_MAX,
        15,
    ),
    model("fee", "mock-words-5", FEE, Says::Truth, 5, 10),
    model(
        "broken",
        "mock-close-midstream",
        ODD,
        Says::Nothing,
        BUILT_IN_MAX,
        6,
    ),
    model(
        "failing",
        "mock-error-midstream",
        FEE,
        Says::Nothing,
        BUILT_IN_MAX,
        6,
    ),
    model("refusing", "mock-500", FEE, Says::Nothing, 0, 4),
    model(
        "above",
        "mock-usage-above",
        EVEN,
        Says::TooMuch,
        BUILT_IN_MAX,
        4,
    ),
];

/// A stream that runs until it is left, cut or killed.
pub(super) const ENDLESS: Model = model(
    "endless",
    "endless",
    r#"prompt = "2", completion = "2.5""#,
    Says::Nothing,
    1_000_000,
    0,
);
/// A stream that waits at the gate `go` after its first words.
pub(super) const GATED: Model = model("gated", "gated", EVEN, Says::Truth, 8, 0);

/// Four tokens, at a cost of exactly thirteen: what is held for it is what it costs.
pub(super) const EXACT: Model = model("exact", "exact", EVEN, Says::Exactly, 4, 0);

/// All of them.
fn all() -> impl Iterator<Item = &'static Model> {
    MODELS.iter().chain([&ENDLESS, &GATED, &EXACT])
}

/// The model of this name.
///
/// # Panics
/// There is none.
#[must_use]
pub fn storm_model(id: &str) -> &'static Model {
    all()
        .find(|model| model.id == id)
        .unwrap_or_else(|| panic!("no model {id}"))
}

/// One of the ordinary ones, by weight.
pub(super) fn any(dice: &mut crate::Dice) -> &'static Model {
    let all = MODELS.iter().map(|model| model.weight).sum();
    let mut at = dice.below(all);
    for model in &MODELS {
        if at < model.weight {
            return model;
        }
        at -= model.weight;
    }
    &MODELS[0]
}

/// The provider's file.
#[must_use]
pub fn storm_provider(url: &str) -> (String, String) {
    let head = format!(
        "name = \"storm\"\ndialect = \"openai\"\nbase_url = \"{url}\"\napi_key_env = \"{}\"\n",
        crate::KEY_VARIABLE
    );
    let models = all().map(|model| {
        format!(
            "[[models]]\nid = \"{}\"\nupstream_id = \"{}\"\ntokenizer = \"o200k_base\"\n\
             learn_factor = false\ncontext_window = 2000000\nmax_output_tokens = 1000000\nprice = {{ {} }}\n",
            model.id, model.upstream, model.price
        )
    });
    ("storm".to_owned(), head + &models.collect::<String>())
}
