//! `tollway check-config`: settings, provider files and routes, one line for each mistake.

use std::{collections::BTreeMap, process::ExitCode};

use store::StoreUrl;

use super::{CommandError, print};
use crate::{
    catalogue::Catalogue,
    cli::Flags,
    configuration::{self, Environment},
    settings::Finding,
};

/// How the places of built-in files begin: nobody can edit those.
const BUILT_IN: &str = "built-in ";

pub(super) fn run(flags: &Flags) -> Result<ExitCode, CommandError> {
    let (environment, mut findings) = configuration::environment();
    let (catalogue, unpriced) = check(flags, &environment, &mut findings);
    for finding in &findings {
        print::line(&finding.to_string())?;
    }
    if !findings.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    for provider in catalogue.providers() {
        let models = catalogue.models();
        let count = models
            .iter()
            .filter(|m| m.provider.name == provider.name)
            .count();
        print::line(&format!("{}: {count} models", provider.name))?;
    }
    let waiting = catalogue.unserved();
    if !waiting.is_empty() {
        let names: Vec<_> = waiting.iter().map(|one| one.name.as_str()).collect();
        print::line(&format!(
            "not served without their keys: {}",
            names.join(", ")
        ))?;
    }
    for line in unpriced {
        print::line(&line)?;
    }
    print::line("the configuration is fine")?;
    Ok(ExitCode::SUCCESS)
}

/// The catalogue, and a line for each model that is served but for its price, with the file to edit.
fn check(
    flags: &Flags,
    environment: &Environment,
    findings: &mut Vec<Finding>,
) -> (Catalogue, Vec<String>) {
    let (settings, files, wrong) = configuration::load(flags, environment);
    findings.extend(wrong);
    if let Err(error) = StoreUrl::parse(&settings.database_url) {
        findings.push(Finding {
            place: "database_url".into(),
            line: None,
            message: error.to_string(),
        });
    }
    let places: BTreeMap<String, String> = files
        .iter()
        .map(|(place, file)| (file.name.clone(), place.clone()))
        .collect();
    let own = settings.prices.as_ref().map_or_else(
        || "a file that the setting `prices` names".to_owned(),
        |path| path.display().to_string(),
    );
    let variable = |name: &str| environment.get(name).cloned();
    let catalogue = Catalogue::new(files, &settings.routes, variable, findings);
    let unpriced = catalogue.models().iter().filter(|m| m.price.is_none());
    let lines = unpriced.map(|model| {
        let place = places.get(&*model.provider.name);
        let edit = place.filter(|place| !place.starts_with(BUILT_IN));
        let beside = edit.map_or(String::new(), |place| format!(" or as its `price` in {place}"));
        format!(
            "{name}: has no price, so it is refused; write one for model = {name:?} into {own}{beside}",
            name = model.full_name
        )
    });
    let lines = lines.collect();
    (catalogue, lines)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn everything_wrong_is_found_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("tollway.toml");
        let text = "topup_url = \"x\"\ndatabase_url = \"mysql://x\"\n[[routes]]\nmodel = \"m\"\ntargets = [\"no/model\"]\n";
        fs::write(&config, text).unwrap();
        let provider = folder.path().join("acme.toml");
        fs::write(&provider, "name = \"acme\"\ndialect = \"klingon\"\n").unwrap();
        let flags = Flags {
            config: Some(config),
            providers: Some(folder.path().join("none")),
            ..Flags::default()
        };
        let mut findings = Vec::new();
        check(&flags, &Environment::new(), &mut findings);
        let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
        for part in [
            "tollway.toml:1: unknown setting \"topup_url\"",
            "none: cannot be read",
            "database_url: ",
            "no provider serves \"no/model\"",
        ] {
            assert!(texts.iter().any(|t| t.contains(part)), "{part}: {texts:?}");
        }
        assert_eq!(texts.len(), 4, "{texts:?}");
    }

    #[test]
    fn the_defaults_are_fine() {
        let mut findings = Vec::new();
        let flags = Flags::default();
        let keys = Environment::from([("OPENAI_API_KEY".to_owned(), "x".to_owned())]);
        let (catalogue, unpriced) = check(&flags, &keys, &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        assert!(unpriced.is_empty(), "{unpriced:?}");
        assert!(catalogue.providers().iter().any(|p| &*p.name == "openai"));
    }

    #[test]
    fn a_model_without_a_price_is_told_with_the_file_to_edit() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::write(&own, "").unwrap();
        let text = "name = \"acme\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n\
                    [[models]]\nid = \"new\"\ncontext_window = 10\n";
        fs::write(folder.path().join("written.toml"), text).unwrap();
        let flags = Flags {
            providers: Some(folder.path().into()),
            ..Flags::default()
        };
        let keys = Environment::from([
            ("NVIDIA_API_KEY".to_owned(), "x".to_owned()),
            ("TOLLWAY_PRICES".to_owned(), own.display().to_string()),
        ]);
        let mut findings = Vec::new();
        let (_, lines) = check(&flags, &keys, &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        let line = |name: &str| lines.iter().find(|line| line.starts_with(name)).unwrap();
        for part in [own.to_str().unwrap(), "written.toml"] {
            assert!(line("acme/new: ").contains(part), "{lines:?}");
        }
        // The file of a built-in provider cannot be edited.
        let built_in = line("nvidia/");
        assert!(
            built_in.contains("/own") && !built_in.contains("nvidia.toml"),
            "{built_in}"
        );
    }
}
