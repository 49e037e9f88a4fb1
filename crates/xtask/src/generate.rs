//! `cargo xtask gen`: writes the documents that are made from code and data, or checks that they are fresh.

mod mutations;
mod providers;

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
};

/// What the chore is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The document; all of them when none is named.
    document: Option<Document>,
    /// Change nothing; fail where a document is not fresh.
    #[arg(long)]
    check: bool,
}

/// A document that is made.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Document {
    /// docs/providers.md, from providers/*.toml.
    Providers,
    /// The table of guards in CONTRIBUTING.md, from tests/mutations.toml.
    Mutations,
}

impl Document {
    const ALL: [Self; 2] = [Self::Providers, Self::Mutations];

    const fn path(self) -> &'static str {
        match self {
            Self::Providers => "docs/providers.md",
            Self::Mutations => "CONTRIBUTING.md",
        }
    }

    fn text(self, checkout: &Checkout) -> Result<String, Failure> {
        match self {
            Self::Providers => providers::text(checkout),
            Self::Mutations => mutations::text(checkout),
        }
    }
}

/// Runs the chore.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let mut report = Report::new();
    let chosen = arguments
        .document
        .map_or(Document::ALL.to_vec(), |document| vec![document]);
    for document in chosen {
        let path = document.path();
        let text = document.text(checkout)?;
        if !arguments.check {
            let state = if checkout.write(path, &text)? {
                "written"
            } else {
                "as it was"
            };
            report.say(format!("{path}: {state}"));
        } else if checkout.read(path).is_ok_and(|old| old == text) {
            report.say(format!("{path}: fresh"));
        } else {
            report.blame(format!("{path}: not fresh; run `cargo xtask gen`"));
        }
    }
    Ok(report)
}
