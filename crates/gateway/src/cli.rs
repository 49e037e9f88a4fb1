//! The command line: `tollway` and its commands (CONTRACT 1).

use std::{convert::Infallible, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::settings::Secret;

/// A gateway for language models with prepaid credits.
#[derive(Parser)]
#[command(name = "tollway", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; serve, where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`.
    #[command(flatten)]
    pub flags: Flags,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Serve clients; the same as no command.
    Serve(Flags),
    /// Make, list, rotate and revoke API keys.
    Keys(Asking<KeysCommand>),
    /// Add credits.
    Credits(Asking<CreditsCommand>),
    /// Make and list accounts.
    Accounts(Asking<AccountsCommand>),
    /// Show what requests consumed and cost.
    Usage {
        /// How to reach the gateway.
        #[command(flatten)]
        remote: Remote,
        /// What to show.
        #[command(flatten)]
        query: UsageQuery,
    },
    /// Prove the books straight from the database: exit 0 and "balanced", else exit 1.
    Audit {
        /// Where the database is.
        #[command(flatten)]
        flags: Flags,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Export the charges of a month, and close it: sums stay, the charges go.
    Charges {
        /// What to do.
        #[command(subcommand)]
        command: ChargesCommand,
    },
    /// Look at settlements that could not be booked, and decide about them.
    Settlements {
        /// What to do.
        #[command(subcommand)]
        command: SettlementsCommand,
    },
    /// Take prices out of a published table, into the file of own prices.
    Prices {
        /// What to do.
        #[command(subcommand)]
        command: PricesCommand,
    },
    /// Lay a provider's own export beside our charges; exit 1 where they differ.
    Reconcile {
        /// How to reach the gateway.
        #[command(flatten)]
        remote: Remote,
        /// What to compare.
        #[command(flatten)]
        asked: ReconcileQuery,
    },
    /// Check settings and provider files: one line for each mistake, exit 1 where there is one.
    CheckConfig(Flags),
}

/// Flags of `serve`; they override the environment, which overrides the configuration file.
#[derive(Args, Clone, Default)]
pub struct Flags {
    /// Address and port for clients [default: 127.0.0.1:8402].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// sqlite://PATH or postgres://… [default: sqlite://tollway-data/tollway.db].
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// A directory of provider files, added to the built-in ones; the same name replaces one.
    #[arg(long, value_name = "DIR")]
    pub providers: Option<PathBuf>,
    /// The configuration file [default: tollway.toml, where it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A directory of this gateway's own in which it writes down what every request owes, so that kill -9 loses nothing.
    #[arg(long, value_name = "DIR")]
    pub local_journal: Option<PathBuf>,
    /// An address of its own for /metrics.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<String>,
    /// Serve the demo provider even where others are configured.
    #[arg(long)]
    pub demo: bool,
}

impl Flags {
    /// The flags that are there, each with the setting that it overrides.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        [
            ("--listen", "listen", self.listen.clone()),
            ("--database-url", "database_url", self.database_url.clone()),
            ("--providers", "providers", path(&self.providers)),
            (
                "--local-journal",
                "local_journal",
                path(&self.local_journal),
            ),
            (
                "--metrics-listen",
                "metrics_listen",
                self.metrics_listen.clone(),
            ),
            ("--demo", "demo", self.demo.then(|| "true".to_owned())),
        ]
        .into_iter()
        .filter_map(|(flag, name, value)| Some((flag, name, value?)))
        .collect()
    }
}

/// A command that asks a running gateway.
#[derive(Args)]
pub struct Asking<C: Subcommand> {
    /// What to ask.
    #[command(subcommand)]
    pub command: C,
    /// How to reach the gateway.
    #[command(flatten)]
    pub remote: Remote,
}

/// How a running gateway is reached.
#[derive(Args, Clone)]
pub struct Remote {
    /// Where the gateway is.
    #[arg(
        long,
        global = true,
        env = "TOLLWAY_URL",
        default_value = "http://127.0.0.1:8402"
    )]
    pub url: String,
    /// The admin key. In the environment it is not in the list of processes.
    #[arg(long, global = true, env = "TOLLWAY_ADMIN_KEY", hide_env_values = true, value_parser = secret)]
    pub admin_key: Option<Secret>,
    /// Print the gateway's JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// Which page of a list.
#[derive(Args, Clone)]
pub struct PageFlags {
    /// Rows at most, 1 to 1000.
    #[arg(long, default_value_t = 100)]
    pub limit: u16,
    /// Where the page starts: printed under the page before.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// What can be done with keys.
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make a key; its secret is printed this once.
    Create {
        /// A name for your eyes.
        #[arg(long, default_value = "key")]
        name: String,
        /// Whose it is; without one the key gets an account of its own.
        #[arg(long, visible_alias = "account-id", value_name = "acct_…")]
        account: Option<String>,
        /// Credits to add to the account.
        #[arg(long)]
        credits: Option<String>,
        /// The most that the key may spend in its life.
        #[arg(long)]
        limit: Option<String>,
        /// A model that it may use; may be there several times. Without one: all.
        #[arg(long = "model", value_name = "MODEL")]
        models: Vec<String>,
        /// When it stops working, such as 2026-12-31 or 2026-12-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// List keys, newest first.
    List {
        /// Of this account.
        #[arg(long, visible_alias = "account-id", value_name = "acct_…")]
        account: Option<String>,
        /// Revoked ones too.
        #[arg(long)]
        with_revoked: bool,
        /// Which page.
        #[command(flatten)]
        page: PageFlags,
    },
    /// Revoke a key for good.
    Revoke {
        /// The key.
        #[arg(value_name = "key_…")]
        id: String,
    },
    /// Give a key a new secret; the old one stops working.
    Rotate {
        /// The key.
        #[arg(value_name = "key_…")]
        id: String,
    },
}

/// What can be done with credits.
#[derive(Subcommand)]
pub enum CreditsCommand {
    /// Add credits to an account, or to the account of a key.
    Add {
        /// An account or a key.
        #[arg(value_name = "acct_…|key_…")]
        to: String,
        /// How many, such as 12.5; negative for an adjustment or a refund.
        #[arg(allow_negative_numbers = true)]
        amount: String,
        /// purchase, promo, trial, allowance, adjustment or refund.
        #[arg(long, default_value = "purchase")]
        kind: String,
        /// When the rest of them expires.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Your reference, such as a payment's id.
        #[arg(long)]
        reference: Option<String>,
        /// A note.
        #[arg(long)]
        note: Option<String>,
        /// Your own name of this call: repeated with it, it has no second effect.
        #[arg(long)]
        idempotency_key: Option<String>,
    },
}

/// What can be done with accounts.
#[derive(Subcommand)]
pub enum AccountsCommand {
    /// Make an account.
    Create {
        /// A name for your eyes.
        #[arg(long)]
        name: String,
        /// How far below zero it may go.
        #[arg(long)]
        overdraft: Option<String>,
    },
    /// List accounts, newest first.
    List {
        /// Which page.
        #[command(flatten)]
        page: PageFlags,
    },
    /// Show one account.
    Show {
        /// The account.
        #[arg(value_name = "acct_…")]
        id: String,
    },
    /// Show the ledger of an account, newest first.
    Entries {
        /// The account.
        #[arg(value_name = "acct_…")]
        id: String,
        /// Which page.
        #[command(flatten)]
        page: PageFlags,
    },
}

/// What can be done with prices.
#[derive(Subcommand)]
pub enum PricesCommand {
    /// Show what a published price table changes, amount by amount; `--yes` writes it into the file of
    /// own prices, from a day on.
    Update(UpdatePrices),
}

/// An update of prices.
#[derive(Args, Clone)]
pub struct UpdatePrices {
    /// The table: litellm's model_prices_and_context_window.json, or genai-prices' data.py.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Only this provider; may be there several times.
    #[arg(long = "provider", value_name = "NAME")]
    pub only: Vec<String>,
    /// The day from which the prices hold, UTC [default: today].
    #[arg(long, value_name = "DAY")]
    pub valid_from: Option<String>,
    /// Write it.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the configuration is.
    #[command(flatten)]
    pub flags: Flags,
}

/// A comparison with a provider's own figures.
#[derive(Args, Clone)]
pub struct ReconcileQuery {
    /// The provider, as it is called here.
    #[arg(long, value_name = "NAME")]
    pub provider: String,
    /// Its export of usage or of costs: a CSV file of OpenAI's or Anthropic's.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// The first day, UTC [default: the first in the file].
    #[arg(long, value_name = "DAY")]
    pub from: Option<String>,
    /// The day after the last, UTC [default: that after the last in the file].
    #[arg(long, value_name = "DAY")]
    pub to: Option<String>,
    /// How much of the larger figure a difference may be, in percent, such as 0.5.
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    pub tolerance: String,
}

/// What can be done with the charges of a month, straight on the database, while gateways run.
#[derive(Subcommand)]
pub enum ChargesCommand {
    /// Write every charge of a month to a new file: a line of JSON each, then one with their count,
    /// their sums and the SHA-256 of the lines.
    Export {
        /// Where the database is.
        #[command(flatten)]
        flags: Flags,
        /// The month, such as 2026-08, UTC.
        #[arg(long)]
        month: String,
        /// The file; it must not be there yet.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compare the file of an export with the charges of its month, and put sums in their place:
    /// balances stay as they are, single requests of the month are in the file only.
    Close {
        /// Where the database is.
        #[command(flatten)]
        flags: Flags,
        /// The month, such as 2026-08, UTC.
        #[arg(long)]
        month: String,
        /// What `tollway charges export` wrote. Keep it: nothing else has it.
        #[arg(long, value_name = "FILE")]
        export: PathBuf,
        /// Days since the end of the month; at least 2. Settlements that come later are put aside.
        #[arg(long, value_name = "DAYS", default_value_t = 35,
            value_parser = clap::value_parser!(u32).range(2..=36_500))]
        after_days: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What can be done with settlements that were put aside, straight on the database.
#[derive(Subcommand)]
pub enum SettlementsCommand {
    /// List those that wait for a decision, newest request first.
    List {
        /// Where the database is.
        #[command(flatten)]
        flags: Flags,
        /// Those that were decided too.
        #[arg(long)]
        all: bool,
        /// Which page.
        #[command(flatten)]
        page: PageFlags,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Decide about one, for good.
    Resolve {
        /// Where the database is.
        #[command(flatten)]
        flags: Flags,
        /// The request that it ends.
        #[arg(long, value_name = "req_…")]
        request: String,
        /// charge (its account pays as far as credit is there), house-loss (the operator does) or
        /// drop (nobody does: it was charged before).
        #[arg(long = "as", value_name = "WAY")]
        resolved_as: String,
        /// Why; it stays with the decision.
        #[arg(long)]
        note: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which requests are summed, and by what.
#[derive(Args, Clone)]
pub struct UsageQuery {
    /// Dimensions with commas between them: day, month, model, provider, key, account, end.
    #[arg(long, default_value = "model")]
    pub group_by: String,
    /// Of this account.
    #[arg(long, visible_alias = "account-id", value_name = "acct_…")]
    pub account: Option<String>,
    /// Of this key.
    #[arg(long, visible_alias = "key-id", value_name = "key_…")]
    pub key: Option<String>,
    /// Of this model.
    #[arg(long)]
    pub model: Option<String>,
    /// Admitted at or after this time or day.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Admitted before this time or day.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve() {
        for line in [
            &["tollway", "--listen", "127.0.0.1:1", "--demo"][..],
            &["tollway", "serve", "--listen", "127.0.0.1:1", "--demo"],
        ] {
            let cli = Cli::try_parse_from(line).ok().unwrap();
            let flags = match cli.command {
                Some(Command::Serve(flags)) => flags,
                _ => cli.flags,
            };
            assert_eq!(flags.settings().len(), 2, "{line:?}");
        }
        assert!(Cli::try_parse_from(["tollway", "surve"]).is_err());
    }

    #[test]
    fn the_gateway_is_named_before_or_after_the_command() {
        for line in [
            &["tollway", "keys", "list", "--url", "http://x", "--json"][..],
            &["tollway", "keys", "--url", "http://x", "--json", "list"],
        ] {
            let Some(Command::Keys(asking)) = Cli::try_parse_from(line).ok().unwrap().command
            else {
                panic!("{line:?}");
            };
            assert_eq!(asking.remote.url, "http://x");
            assert!(asking.remote.json);
        }
    }

    #[test]
    fn an_amount_may_be_negative() {
        let line = [
            "tollway", "credits", "add", "acct_1", "-2.5", "--kind", "refund",
        ];
        assert!(Cli::try_parse_from(line).is_ok());
    }
}
