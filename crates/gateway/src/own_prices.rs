//! The operator's own prices: a file that overrides those of the provider files, and the markups on top.

use std::{collections::BTreeMap, fs, path::Path};

use billing::{AccountId, Multiplier, Rates, ServiceTier};
use serde::Deserialize;

use crate::{
    price_file::{self, HoursFile, ServiceTierFile, TierFile, VersionFile},
    prices::{Markup, matches},
    provider_file::ProviderFile,
    settings::{Finding, finding_of_toml},
};

/// The largest file that is read, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 20;

/// The file, as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OwnPrices {
    /// What the operator pays.
    pub(crate) prices: Vec<OwnPrice>,
    markups: Vec<MarkupFile>,
}

/// What the operator pays for a model, in place of what its provider file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnPrice {
    /// `provider/id`; `*` stands for any text.
    pub(crate) model: String,
    /// Absent: in place of every version of the provider file.
    #[serde(default)]
    pub(crate) valid_from: Option<String>,
    price: Rates,
    #[serde(default)]
    price_tiers: Vec<TierFile>,
    #[serde(default, deserialize_with = "price_file::service_tiers")]
    service_tiers: BTreeMap<ServiceTier, ServiceTierFile>,
    #[serde(default)]
    price_hours: Vec<HoursFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkupFile {
    factor: Multiplier,
    #[serde(default)]
    account: Option<AccountId>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

/// Reads the file, writes its prices over those of the provider files, and returns its markups;
/// what is wrong goes to `findings`.
pub fn apply(
    path: &Path,
    files: &mut [(String, ProviderFile)],
    findings: &mut Vec<Finding>,
) -> Vec<Markup> {
    let place = path.display().to_string();
    let mut finding = |message: String| {
        findings.push(Finding {
            place: place.clone(),
            line: None,
            message,
        });
    };
    let large = fs::metadata(path).is_ok_and(|file| file.len() > FILE_BYTES_MAX);
    let text = match fs::read_to_string(path) {
        Ok(text) if !large => text,
        Ok(_) => {
            finding("is larger than 16 MiB".into());
            return Vec::new();
        }
        Err(error) => {
            finding(format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let own: OwnPrices = match toml::from_str(&text) {
        Ok(own) => own,
        Err(error) => {
            findings.push(finding_of_toml(&place, &text, &error));
            return Vec::new();
        }
    };
    for entry in &own.prices {
        match entry.version() {
            Ok(version) if entry.write(&version, files) => {}
            Ok(_) => finding(format!(
                "no provider file has a model {:?}; write provider/id, * stands for any text",
                entry.model
            )),
            Err(problem) => finding(format!("model {:?}: {problem}", entry.model)),
        }
    }
    let markups = own.markups.into_iter().map(|markup| Markup {
        factor: markup.factor,
        account: markup.account,
        group: markup.group,
        model: markup.model,
    });
    markups.collect()
}

impl OwnPrice {
    /// What it says, checked.
    pub(crate) fn version(&self) -> Result<VersionFile, String> {
        let valid_from = match &self.valid_from {
            None => None,
            Some(text) => {
                let time: crate::shape::Time = text.parse().map_err(|_| {
                    format!("valid_from {text:?} is no time such as \"2026-01-31\"")
                })?;
                Some(time.0.as_second())
            }
        };
        let version = VersionFile {
            valid_from,
            price: self.price.clone(),
            price_tiers: self.price_tiers.clone(),
            service_tiers: self.service_tiers.clone(),
            price_hours: self.price_hours.clone(),
        };
        price_file::book(std::slice::from_ref(&version)).map_err(|error| error.to_string())?;
        Ok(version)
    }

    /// Puts it into every model that it names; false where there is none.
    fn write(&self, version: &VersionFile, files: &mut [(String, ProviderFile)]) -> bool {
        let mut found = false;
        for (_, file) in files {
            for model in &mut file.models {
                if matches(&self.model, &format!("{}/{}", file.name, model.id)) {
                    model.override_price(version.clone());
                    found = true;
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "name = \"acme\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n\
        [[models]]\nid = \"m\"\ncontext_window = 10\nprice = { prompt = \"1\", completion = \"2\" }\n\
        [[models]]\nid = \"new\"\ncontext_window = 10\n";

    fn applied(text: &str) -> (ProviderFile, Vec<Markup>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prices.toml");
        fs::write(&path, text).unwrap();
        let mut files = vec![(
            "acme".to_owned(),
            ProviderFile::parse("acme", FILE).unwrap(),
        )];
        let mut findings = Vec::new();
        let markups = apply(&path, &mut files, &mut findings);
        let messages = findings.into_iter().map(|finding| finding.message);
        (files.remove(0).1, markups, messages.collect())
    }

    fn prompt(file: &ProviderFile, model: usize, at: i64) -> Option<String> {
        let book = file.models[model].book().unwrap();
        let offer = book.at(at)?;
        Some(offer.standard().price.base().prompt.to_string())
    }

    #[test]
    fn own_prices_override_from_their_day_on() {
        let (file, markups, findings) = applied(
            "[[prices]]\nmodel = \"acme/*\"\nvalid_from = \"1970-01-02\"\nprice = { prompt = \"3\", completion = \"3\" }\n\
             [[markups]]\nfactor = \"1.2\"\ngroup = \"gold\"\n",
        );
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(prompt(&file, 0, 0).as_deref(), Some("1"));
        assert_eq!(prompt(&file, 0, 86_400).as_deref(), Some("3"));
        // The other had no price before that day, and has none then.
        assert_eq!(prompt(&file, 1, 0), None);
        assert_eq!(prompt(&file, 1, 86_400).as_deref(), Some("3"));
        assert_eq!(markups[0].factor.to_string(), "1.2");
        let (file, _, _) = applied(
            "[[prices]]\nmodel = \"acme/m\"\nprice = { prompt = \"0\", completion = \"0\" }\n",
        );
        assert_eq!(prompt(&file, 0, 0).as_deref(), Some("0"));
    }

    #[test]
    fn what_is_wrong_is_found() {
        for (text, part) in [
            (
                "[[prices]]\nmodel = \"no/m\"\nprice = { request = \"1\" }",
                "no provider file",
            ),
            (
                "[[prices]]\nmodel = \"acme/m\"\nprice = { prompt = \"-1\", completion = \"1\" }",
                "never negative",
            ),
            (
                "[[prices]]\nmodel = \"acme/m\"\nvalid_from = \"soon\"\nprice = { request = \"1\" }",
                "soon",
            ),
            ("[[markups]]\nfactor = \"x\"", "1.25"),
            ("[[markups]]\nfactor = \"1\"\nacount = \"x\"", "acount"),
        ] {
            let (_, _, findings) = applied(text);
            assert!(
                findings.iter().any(|f| f.contains(part)),
                "{text}: {findings:?}"
            );
        }
        let mut findings = Vec::new();
        apply(Path::new("/nowhere/prices.toml"), &mut [], &mut findings);
        assert!(findings[0].message.contains("cannot be read"));
    }
}
