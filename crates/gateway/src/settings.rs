//! Settings: defaults, overridden by `tollway.toml`, overridden by `TOLLWAY_*`, overridden by flags.

mod known;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use store::Pooler;
use toml::de::{DeTable, DeValue};

pub use self::known::{SETTINGS, Setting};

/// A secret that does not show itself in logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the one place that sends or compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What happens upstream when a client hangs up in the middle of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientGonePolicy {
    /// Close the upstream connection at once and charge what was delivered, by our own count.
    Cancel,
    /// Read on for the provider's own figure, bounded by the hold and by `drain_seconds_max`.
    Drain,
}

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// `sqlite://PATH` or `postgres://…`.
    pub database_url: String,
    /// The operator's key; made and printed at the first start where it is not set.
    pub admin_key: Option<Secret>,
    /// A directory of provider files, added to the built-in ones.
    pub providers: Option<PathBuf>,
    /// The file of the operator's own prices and markups.
    pub prices: Option<PathBuf>,
    /// The markups of that file.
    pub markups: Vec<crate::prices::Markup>,
    /// Shown in a 402.
    pub top_up_url: Option<String>,
    /// An address of its own for `/metrics`.
    pub metrics_listen: Option<SocketAddr>,
    /// Serve the demo provider even where others are configured.
    pub demo: bool,
    /// See [`ClientGonePolicy`].
    pub client_gone: ClientGonePolicy,
    /// How long a drained stream is read on at most.
    pub drain_max: Duration,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Largest file that is passed on, in bytes.
    pub file_bytes_max: u64,
    /// Large request bodies together, in bytes.
    pub bodies_bytes_max: usize,
    /// Largest event of an upstream stream, in bytes.
    pub event_bytes_max: usize,
    /// Largest plain answer of a provider, in bytes.
    pub answer_bytes_max: usize,
    /// Requests in flight at most; one more is answered 503.
    pub requests_max: usize,
    /// Requests of one key in flight at most; one more is answered 429.
    pub requests_per_key_max: usize,
    /// How long an Idempotency-Key stands for its first request.
    pub idempotency_kept: Duration,
    /// How long a repeated request waits for the first one's answer.
    pub idempotency_wait: Duration,
    /// Largest answer that is kept for an Idempotency-Key, in bytes.
    pub idempotency_answer_bytes_max: usize,
    /// Answers kept for one account, in bytes.
    pub idempotency_account_bytes_max: usize,
    /// Idempotency-Keys of one account.
    pub idempotency_keys_max: usize,
    /// How long responses are kept; zero: none is.
    pub responses_kept: Duration,
    /// Largest response that is kept here with its input, in bytes.
    pub response_bytes_max: usize,
    /// Responses kept for one account, in bytes.
    pub responses_account_bytes_max: usize,
    /// Open client connections at most.
    pub connections_max: usize,
    /// To connect to a provider.
    pub connect_timeout: Duration,
    /// To the first byte of a provider's answer.
    pub first_byte_timeout: Duration,
    /// Between two reads of a provider's stream.
    pub idle_timeout: Duration,
    /// Of a provider's stream that sends something all the time, and no output.
    pub output_timeout: Duration,
    /// From a client's connection to the end of its request's headers.
    pub header_timeout: Duration,
    /// For a client's request body.
    pub body_timeout: Duration,
    /// How long running streams may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// Attempts upstream per request, over all targets.
    pub attempts_max: usize,
    /// Where requests are passed through that name neither a model nor a provider.
    pub passthrough_provider: Option<String>,
    /// Connections to the database.
    pub database_connections: u32,
    /// What stands between this program and its Postgres.
    pub database_pooler: Pooler,
    /// The folder of the local journal, where one is kept.
    pub local_journal: Option<PathBuf>,
    /// How often the books are proved for the metric.
    pub audit_every: Duration,
    /// How often batches that hold credits are looked at.
    pub batch_look_every: Duration,
    /// Requests of each model that are counted although their usage is reported, per minute.
    pub samples_per_minute: u32,
    /// Explicit routes.
    pub routes: Vec<RouteSetting>,
}

/// `[[routes]]` in `tollway.toml`: a model name and what serves it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSetting {
    /// What clients ask for.
    pub model: String,
    /// `provider/model`, tried in order.
    pub targets: Vec<String>,
    /// Whether what a target cannot do is left out instead of refused.
    pub drop_unsupported: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8402)),
            database_url: "sqlite://tollway-data/tollway.db".into(),
            admin_key: None,
            providers: None,
            prices: None,
            markups: Vec::new(),
            top_up_url: None,
            metrics_listen: None,
            demo: false,
            client_gone: ClientGonePolicy::Cancel,
            drain_max: Duration::from_secs(30),
            body_bytes_max: 20 << 20,
            file_bytes_max: 512 << 20,
            bodies_bytes_max: 1 << 30,
            event_bytes_max: 1 << 20,
            answer_bytes_max: 64 << 20,
            requests_max: 16_384,
            requests_per_key_max: 4096,
            idempotency_kept: Duration::from_secs(24 * 3600),
            idempotency_wait: Duration::from_secs(30),
            idempotency_answer_bytes_max: 1 << 20,
            idempotency_account_bytes_max: 64 << 20,
            idempotency_keys_max: 10_000,
            responses_kept: Duration::from_secs(30 * 24 * 3600),
            response_bytes_max: 4 << 20,
            responses_account_bytes_max: 256 << 20,
            connections_max: 20_000,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(120),
            output_timeout: Duration::from_secs(600),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(30),
            attempts_max: 3,
            passthrough_provider: None,
            database_connections: 8,
            database_pooler: Pooler::Detect,
            local_journal: None,
            audit_every: Duration::from_secs(3600),
            batch_look_every: Duration::from_secs(600),
            samples_per_minute: 6,
            routes: Vec::new(),
        }
    }
}

/// Variables with the prefix that are no settings.
const OTHER_VARIABLES: &[&str] = &["TOLLWAY_CONFIG", "TOLLWAY_URL"];
/// The environment's prefix.
const PREFIX: &str = "TOLLWAY_";
/// A name further from every known one than this is not a slip of the pen.
const SLIP_MAX: usize = 3;

/// One thing wrong with the configuration, with the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file or variable.
    pub place: String,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.place, self.message),
            None => write!(f, "{}: {}", self.place, self.message),
        }
    }
}

impl Settings {
    /// Takes in the text of a `tollway.toml`; what is wrong goes to `findings`.
    pub fn apply_toml(&mut self, place: &str, text: &str, findings: &mut Vec<Finding>) {
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                findings.push(finding_of_toml(place, text, &error));
                return;
            }
        };
        for (key, value) in table.get_ref() {
            let line = Some(line_of(text, key.span().start));
            let result = match (key.get_ref().as_ref(), value.get_ref()) {
                ("routes", routes) => self.apply_routes(routes),
                (name, value) => match scalar(value) {
                    Some(value) => self.apply_named(name, &value),
                    None => Err("expected one value, not a list or a table".into()),
                },
            };
            if let Err(message) = result {
                findings.push(Finding {
                    place: place.into(),
                    line,
                    message,
                });
            }
        }
    }

    /// Takes in `TOLLWAY_*` and `DATABASE_URL` of these variables.
    pub fn apply_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
        findings: &mut Vec<Finding>,
    ) {
        let mut ours: Vec<(String, String)> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX) || name == "DATABASE_URL")
            .filter(|(name, _)| !OTHER_VARIABLES.contains(&name.as_str()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        // DATABASE_URL sorts first, so TOLLWAY_DATABASE_URL has the last word.
        ours.sort();
        for (variable, value) in ours {
            let name = variable
                .strip_prefix(PREFIX)
                .unwrap_or(&variable)
                .to_ascii_lowercase();
            if let Err(message) = self.apply_named(&name, &value) {
                findings.push(Finding {
                    place: format!("environment variable {variable}"),
                    line: None,
                    message,
                });
            }
        }
    }

    /// Takes in one setting by name.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn apply_named(&mut self, name: &str, value: &str) -> Result<(), String> {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => (setting.apply)(self, value),
            None => Err(unknown(name)),
        }
    }

    fn apply_routes(&mut self, routes: &DeValue<'_>) -> Result<(), String> {
        let DeValue::Array(routes) = routes else {
            return Err("write [[routes]] tables with model and targets".into());
        };
        for route in routes {
            let DeValue::Table(route) = route.get_ref() else {
                return Err("write [[routes]] tables with model and targets".into());
            };
            let mut model = None;
            let mut targets = Vec::new();
            let mut drop_unsupported = false;
            for (key, value) in route {
                match (key.get_ref().as_ref(), value.get_ref()) {
                    ("model", DeValue::String(name)) => model = Some(name.to_string()),
                    ("targets", DeValue::Array(list)) => {
                        for target in list {
                            let DeValue::String(target) = target.get_ref() else {
                                return Err("targets are texts such as \"openai/gpt-4o\"".into());
                            };
                            targets.push(target.to_string());
                        }
                    }
                    ("drop_unsupported", DeValue::Boolean(yes)) => drop_unsupported = *yes,
                    (other, _) => {
                        return Err(format!(
                            "a route has model, targets and drop_unsupported, not {other:?} of this type"
                        ));
                    }
                }
            }
            let model = model.ok_or("a route names its model: model = \"…\"")?;
            if targets.is_empty() {
                return Err(format!("route {model:?} has no targets"));
            }
            self.routes.push(RouteSetting {
                model,
                targets,
                drop_unsupported,
            });
        }
        Ok(())
    }
}

/// The finding for a text that is not TOML or not of the expected shape.
#[must_use]
pub fn finding_of_toml(place: &str, text: &str, error: &toml::de::Error) -> Finding {
    Finding {
        place: place.into(),
        line: error.span().map(|span| line_of(text, span.start)),
        message: error.message().to_owned(),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    memchr::memchr_iter(b'\n', before).count() + 1
}

fn unknown(name: &str) -> String {
    let closest = SETTINGS
        .iter()
        .map(|setting| setting.name)
        .chain(["routes"])
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min();
    match closest {
        Some((distance, known)) if distance <= SLIP_MAX.max(known.len() / 3) => {
            format!("unknown setting {name:?}; the closest known one is {known:?}")
        }
        Some(_) | None => {
            format!("unknown setting {name:?}; docs/settings.md lists the known ones")
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_toml(text: &str) -> (Settings, Vec<String>) {
        let mut settings = Settings::default();
        let mut findings = Vec::new();
        settings.apply_toml("tollway.toml", text, &mut findings);
        (settings, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn later_sources_override_earlier_ones() {
        let (mut settings, findings) = from_toml("listen = \"127.0.0.1:1\"\nrequests_max = 7\n");
        assert!(findings.is_empty(), "{findings:?}");
        let mut findings = Vec::new();
        let variables = [("TOLLWAY_LISTEN", "127.0.0.1:2"), ("OTHER", "x")];
        settings.apply_environment(
            variables.map(|(n, v)| (n.to_owned(), v.to_owned())),
            &mut findings,
        );
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(settings.listen.port(), 2);
        assert_eq!(settings.requests_max, 7);
    }

    #[test]
    fn an_unknown_setting_names_the_closest_known_one_and_its_line() {
        let (_, findings) = from_toml("\nlisten = \"127.0.0.1:1\"\ntopup_url = \"x\"\n");
        assert_eq!(
            findings,
            [
                "tollway.toml:3: unknown setting \"topup_url\"; the closest known one is \"top_up_url\""
            ]
        );
    }

    #[test]
    fn wrong_values_say_what_is_expected() {
        for (text, part) in [
            ("listen = \"nowhere\"", "expected an address"),
            ("requests_max = -1", "expected a whole number"),
            ("idle_timeout_seconds = 0", "expected 0.001"),
            ("client_gone = \"never\"", "write cancel or drain"),
            ("admin_key = \"short\"", "at least 16"),
            ("routes = 3", "write [[routes]]"),
            ("listen = [1]", "expected one value"),
            ("listen = ", "tollway.toml:1"),
        ] {
            let (_, findings) = from_toml(text);
            assert!(
                findings.first().is_some_and(|f| f.contains(part)),
                "{text}: {findings:?}"
            );
        }
    }

    #[test]
    fn every_documented_default_is_the_default() {
        for setting in SETTINGS.iter().filter(|s| !s.default.is_empty()) {
            let mut settings = Settings::default();
            (setting.apply)(&mut settings, setting.default).unwrap();
            assert_eq!(
                format!("{settings:?}"),
                format!("{:?}", Settings::default()),
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn routes_are_read() {
        let (settings, findings) =
            from_toml("[[routes]]\nmodel = \"best\"\ntargets = [\"a/x\", \"b/y\"]\n");
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(settings.routes[0].targets, ["a/x", "b/y"]);
    }
}
