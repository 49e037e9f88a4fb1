//! Counts the instructions of a fixed piece of work per request, and compares them with the figures that are kept.

use std::{collections::BTreeMap, process::Command, time::Duration};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Runner, Tools, text},
};

/// The figures that are kept: instructions per request, by what the request is.
const KEPT: &str = "crates/bench-path/instructions.toml";
/// How far from them a figure may be, in percent, before somebody has to look.
const BAND_PERCENT: u64 = 5;
/// What is counted, with how many requests tell one from the program around it.
const COUNTED: [(&str, u64); 2] = [("plain", 200), ("streamed", 50)];
/// Building an optimised program.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);

/// Counts, and compares or writes.
pub(super) fn run(checkout: &Checkout, write: bool) -> Result<Report, Failure> {
    let tools = Tools::new(checkout, "bench-instructions")?;
    tools.package_of("valgrind", "valgrind")?;
    let build = ["build", "--locked", "--release", "--package", "bench-path"];
    let mut report = Report::new();
    if tools.cargo(&build, Runner::ExitCode, BUILD_MAX)?.failed > 0 {
        report.blame("bench-path is not built");
        return Ok(report);
    }
    let program = tools.built("release/bench-path");
    let mut counted = BTreeMap::new();
    for (what, requests) in COUNTED {
        let (once, twice) = (
            count(text(&program)?, what, requests)?,
            count(text(&program)?, what, 2 * requests)?,
        );
        counted.insert(what.to_owned(), twice.saturating_sub(once) / requests);
    }
    if write {
        checkout.write(KEPT, &shown(&counted))?;
        report.say(format!("{KEPT} is written"));
    }
    let kept: BTreeMap<String, u64> =
        toml::from_str(&checkout.read(KEPT)?).map_err(|error| Failure::content(KEPT, error))?;
    for (what, now) in &counted {
        judge(what, *now, kept.get(what).copied(), &mut report);
    }
    Ok(report)
}

/// The instructions of a whole run.
fn count(program: &str, what: &str, requests: u64) -> Result<u64, Failure> {
    let requests = requests.to_string();
    let arguments = [
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        program,
        what,
        &requests,
    ];
    let failed = |why: String| Failure::Program {
        program: format!("valgrind {}", arguments.join(" ")),
        what: why,
    };
    let output = Command::new("valgrind")
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = collected(&said).filter(|_| output.status.success());
    counted.ok_or_else(|| failed(said.into_owned()))
}

/// What callgrind says that it has collected.
fn collected(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn judge(what: &str, now: u64, kept: Option<u64>, report: &mut Report) {
    let Some(kept) = kept else {
        report.blame(format!("{what}: {now} instructions; {KEPT} has no figure"));
        return;
    };
    let band = kept * BAND_PERCENT / 100;
    let line = format!("{what}: {now} instructions a request, {kept} kept");
    if now > kept + band {
        report.blame(format!(
            "{line}: more than {BAND_PERCENT} % more. Where that is the price of something worth \
             it, `cargo xtask bench instructions --write` keeps the new figure"
        ));
    } else if now + band < kept {
        report.blame(format!(
            "{line}: more than {BAND_PERCENT} % less. Keep it: `cargo xtask bench instructions --write`"
        ));
    } else {
        report.say(line);
    }
}

fn shown(figures: &BTreeMap<String, u64>) -> String {
    let mut text = String::from(
        "# Instructions of the gateway's own work for one request (crates/bench-path), as callgrind counts\n\
         # them. Written by `cargo xtask bench instructions --write`; the tests allow 5 % around them.\n",
    );
    for (what, figure) in figures {
        text += &format!("{what} = {figure}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7==\n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== Collected :"), None);
    }

    #[test]
    fn five_percent_more_or_less_are_well() {
        for (now, well) in [(949, false), (950, true), (1050, true), (1051, false)] {
            let mut report = Report::new();
            judge("plain", now, Some(1000), &mut report);
            assert_eq!(report.all_well, well, "{now}");
        }
        let mut report = Report::new();
        judge("plain", 1, None, &mut report);
        assert!(!report.all_well);
    }

    #[test]
    fn what_is_written_is_read() {
        let figures = BTreeMap::from([("plain".to_owned(), 7)]);
        let read: BTreeMap<String, u64> = toml::from_str(&shown(&figures)).unwrap();
        assert_eq!(read, figures);
    }
}
