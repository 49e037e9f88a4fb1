//! The list of mutations, tests/mutations.toml: what is taken out, where, and which tests must miss it.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{checkout::Checkout, report::Failure};

/// Where the list is.
const PATH: &str = "tests/mutations.toml";
/// The package whose tests start the program `tollway`.
const WHOLE_PROGRAM: &str = "tests";

/// All mutations.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// In the order of the file.
    #[serde(rename = "mutation")]
    pub(crate) mutations: Vec<Mutation>,
}

/// One guard, and how it is taken out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutation {
    /// What it is called on the command line.
    pub(crate) name: String,
    /// The guard, in words.
    pub(crate) guard: String,
    /// The file it is in, below the root.
    pub(crate) file: String,
    /// Its text, which is in the file once.
    pub(crate) find: String,
    /// What stands there without it.
    pub(crate) replace: String,
    /// Arguments of `cargo nextest run` for the tests that must fail then.
    pub(crate) tests: Vec<String>,
}

impl List {
    /// Reads the list and checks each entry against the code.
    pub(crate) fn read(checkout: &Checkout) -> Result<Self, Failure> {
        let text = checkout.read(PATH)?;
        let list = Self::parse(&text)?;
        for mutation in &list.mutations {
            mutation.apply(&checkout.read(&mutation.file)?)?;
        }
        Ok(list)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let list: Self = toml::from_str(text).map_err(|error| Failure::content(PATH, error))?;
        let mut names = BTreeSet::new();
        for mutation in &list.mutations {
            if !names.insert(&mutation.name) {
                return Err(mutation.wrong("its name is there twice"));
            }
            if mutation.find == mutation.replace || mutation.tests.is_empty() {
                return Err(mutation.wrong("it changes nothing, or names no tests"));
            }
        }
        Ok(list)
    }
}

impl Mutation {
    /// The file's text without the guard.
    pub(crate) fn apply(&self, text: &str) -> Result<String, Failure> {
        match text.matches(self.find.as_str()).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            0 => Err(self.wrong("its text is not there any more; follow the change")),
            _ => {
                Err(self
                    .wrong("its text is there several times; take in more of the lines around it"))
            }
        }
    }

    /// Whether its tests start the program.
    pub(crate) fn starts_the_program(&self) -> bool {
        self.tests.iter().any(|argument| argument == WHOLE_PROGRAM)
    }

    fn wrong(&self, why: &str) -> Failure {
        Failure::content(format!("{PATH}: {} ({})", self.name, self.file), why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, find: &str) -> String {
        format!(
            "[[mutation]]\nname = \"{name}\"\nguard = \"g\"\nfile = \"f\"\nfind = \"{find}\"\n\
             replace = \"\"\ntests = [\"-p\", \"tests\"]\n"
        )
    }

    #[test]
    fn a_guard_is_found_once_or_the_list_is_wrong() {
        let list = List::parse(&entry("a", "x > 0")).unwrap();
        let [mutation] = list.mutations.as_slice() else {
            panic!("one");
        };
        assert_eq!(mutation.apply("if x > 0 {}").unwrap(), "if  {}");
        assert!(mutation.starts_the_program());
        for text in ["if y {}", "x > 0 && x > 0"] {
            assert!(mutation.apply(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_unique_and_something_is_changed() {
        assert!(List::parse(&(entry("a", "x") + &entry("a", "y"))).is_err());
        assert!(List::parse(&entry("a", "")).is_err());
    }

    #[test]
    fn the_list_fits_the_code() {
        let checkout = Checkout::find().unwrap();
        let list = List::read(&checkout).unwrap();
        assert!(list.mutations.len() >= 10, "{}", list.mutations.len());
    }
}
