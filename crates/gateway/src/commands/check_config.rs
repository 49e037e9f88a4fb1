//! `tollway check-config`: settings, provider files and routes, one line for each mistake.

use std::process::ExitCode;

use store::StoreUrl;

use super::{CommandError, print};
use crate::{
    catalogue::Catalogue,
    cli::Flags,
    configuration::{self, Environment},
    settings::Finding,
};

pub(super) fn run(flags: &Flags) -> Result<ExitCode, CommandError> {
    let (environment, mut findings) = configuration::environment();
    let catalogue = check(flags, &environment, &mut findings);
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
    let unpriced = catalogue.models().iter().filter(|m| m.price.is_none());
    for model in unpriced {
        print::line(&format!(
            "{}: has no price, so it is refused",
            model.full_name
        ))?;
    }
    print::line("the configuration is fine")?;
    Ok(ExitCode::SUCCESS)
}

fn check(flags: &Flags, environment: &Environment, findings: &mut Vec<Finding>) -> Catalogue {
    let (settings, files, wrong) = configuration::load(flags, environment);
    findings.extend(wrong);
    if let Err(error) = StoreUrl::parse(&settings.database_url) {
        findings.push(Finding {
            place: "database_url".into(),
            line: None,
            message: error.to_string(),
        });
    }
    let variable = |name: &str| environment.get(name).cloned();
    Catalogue::new(files, &settings.routes, variable, findings)
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
        let catalogue = check(&flags, &keys, &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        assert!(catalogue.providers().iter().any(|p| &*p.name == "openai"));
    }
}
