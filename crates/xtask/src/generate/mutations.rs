//! Writes the table of guards in CONTRIBUTING.md, from the list that `cargo xtask mutate` works through.

use std::fmt::Write as _;

use crate::{checkout::Checkout, mutate::List, report::Failure};

const FILE: &str = "CONTRIBUTING.md";
const BEGIN: &str =
    "<!-- Written by `cargo xtask gen mutations` from tests/mutations.toml; edit that. -->\n";
const END: &str = "<!-- Until here. -->\n";

/// CONTRIBUTING.md with the table as it should be.
pub(super) fn text(checkout: &Checkout) -> Result<String, Failure> {
    let list = List::read(checkout)?;
    let mut table =
        String::from("\n| without this guard | in | these tests fail |\n|---|---|---|\n");
    for mutation in &list.mutations {
        let _ = writeln!(
            table,
            "| {} (`{}`) | `{}` | `{}` |",
            mutation.guard,
            mutation.name,
            mutation.file,
            mutation.tests.join(" ").replace('|', "\\|")
        );
    }
    table.push('\n');
    let old = checkout.read(FILE)?;
    let missing = || Failure::content(FILE, "the marks around the table of guards are gone");
    let (before, rest) = old.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok([before, BEGIN, &table, END, after].concat())
}
