//! `cargo xtask tidy`: checks the habits that no compiler checks, and says how to mend each finding.

mod documents;
mod manifests;
mod providers;
mod rust_text;
mod sources;

use std::{collections::BTreeSet, fmt};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
};

/// Something to mend.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    /// From 1.
    line: usize,
    what: String,
    mend: &'static str,
}

impl Finding {
    fn new(file: &str, line: usize, what: String, mend: &'static str) -> Self {
        Self {
            file: file.to_owned(),
            line,
            what,
            mend,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}; {}",
            self.file, self.line, self.what, self.mend
        )
    }
}

/// Runs every check on every file that git tracks or would track.
pub(crate) fn run(checkout: &Checkout) -> Result<Report, Failure> {
    let files = checkout.files()?;
    let mut findings = Vec::new();
    let mut changelog = None;
    let mut faults = None;
    let mut functions = BTreeSet::new();
    for file in &files {
        // What is not text is a picture or the like, and no habit covers it.
        let Ok(text) = checkout.read(file) else {
            continue;
        };
        findings.extend(check(checkout, file, &text));
        if file.ends_with(".rs") {
            functions.extend(rust_text::function_names(&text));
        }
        if file == documents::CHANGELOG {
            changelog = Some(text);
        } else if file == documents::FAULTS {
            faults = Some(text);
        }
    }
    findings.extend(documents::check_changelog(changelog.as_deref()));
    findings.extend(documents::check_faults(faults.as_deref(), |name| {
        functions.contains(name)
    }));
    findings.sort();
    let mut report = Report::new();
    for finding in &findings {
        report.blame(finding.to_string());
    }
    report.say(match findings.len() {
        0 => format!("tidy: {} files, nothing to mend", files.len()),
        count => format!("tidy: {count} to mend"),
    });
    Ok(report)
}

fn check(checkout: &Checkout, file: &str, text: &str) -> Vec<Finding> {
    let mut findings = documents::check_machine_paths(file, text);
    if file.ends_with(".rs") {
        findings.extend(sources::check(file, text));
    } else if file.ends_with(".md") {
        findings.extend(documents::check_links(file, text, |path| {
            checkout.path(path).exists()
        }));
    } else if file.ends_with("Cargo.toml") {
        findings.extend(manifests::check(file, text));
    } else if file.starts_with("providers/") && file.ends_with(".toml") {
        findings.extend(providers::check(file, text));
    }
    findings
}
