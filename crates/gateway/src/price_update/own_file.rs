//! The operator's file of own prices: what a person wrote, and below a line what updates wrote.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

use billing::Rates;

use crate::{
    own_prices::{FILE_BYTES_MAX, OwnPrices},
    price_file::{HoursFile, TierFile, VersionFile},
    prices::matches,
};

/// Below it everything is written by updates.
const LINE: &str = "# ---- written by `tollway prices update`: do not edit below this line ----";

/// A price that an update writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `provider/id`.
    pub model: String,
    /// The day from which it holds, `YYYY-MM-DD`.
    pub valid_from: String,
    /// The price.
    pub version: VersionFile,
}

/// The file, read.
#[derive(Clone, Debug, Default)]
pub struct OwnFile {
    text_by_hand: String,
    models_by_hand: Vec<String>,
    written: Vec<Entry>,
}

impl OwnFile {
    /// Reads the file; one that is not there is empty.
    ///
    /// # Errors
    /// Why it cannot be read, or what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |problem: &dyn ToString| format!("{}: {}", path.display(), problem.to_string());
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => {
                let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
                let read = read.map_err(|error| wrong(&error))?;
                if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
                    return Err(wrong(&"is larger than 16 MiB"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong(&error)),
        }
        Self::parse(&text).map_err(|problem| wrong(&problem))
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (by_hand, written) = text.split_once(LINE).unwrap_or((text, ""));
        let read =
            |text: &str| toml::from_str::<OwnPrices>(text).map_err(|error| error.to_string());
        let mut entries = Vec::new();
        for price in read(written)?.prices {
            entries.push(Entry {
                version: price.version()?,
                valid_from: price.valid_from.unwrap_or_default(),
                model: price.model,
            });
        }
        let models = read(by_hand)?.prices.into_iter().map(|price| price.model);
        Ok(Self {
            models_by_hand: models.collect(),
            text_by_hand: by_hand.trim_end().to_owned(),
            written: entries,
        })
    }

    /// Whether a person wrote a price for this `provider/id`.
    #[must_use]
    pub fn has_by_hand(&self, model: &str) -> bool {
        let mut patterns = self.models_by_hand.iter();
        patterns.any(|pattern| matches(pattern, model))
    }

    /// The file's text with these entries in it: what a person wrote stays to the byte, and of what
    /// was written before, the version that holds until the new one begins.
    #[must_use]
    pub fn with(self, entries: Vec<Entry>) -> String {
        let mut all: BTreeMap<String, BTreeMap<String, VersionFile>> = BTreeMap::new();
        for entry in self.written {
            let versions = all.entry(entry.model).or_default();
            versions.insert(entry.valid_from, entry.version);
        }
        for entry in entries {
            let versions = all.entry(entry.model).or_default();
            let mut later = versions.split_off(&entry.valid_from);
            later.clear();
            while versions.len() > 1 {
                versions.pop_first();
            }
            versions.insert(entry.valid_from, entry.version);
        }
        let mut text = self.text_by_hand;
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(LINE);
        text.push('\n');
        for (model, versions) in &all {
            for (valid_from, version) in versions {
                write_entry(&mut text, model, valid_from, version);
            }
        }
        text
    }
}

/// Puts a text into a file in one step: whoever reads it meanwhile sees the old one or the new one.
///
/// # Errors
/// The disk's.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&beside)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        // What is half written is of no use; where it is gone already, all is well.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_entry(text: &mut String, model: &str, valid_from: &str, version: &VersionFile) {
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n[[prices]]\nmodel = {}\nvalid_from = {}\nprice = {}\n",
        quoted(model),
        quoted(valid_from),
        rates(&version.price)
    );
    if !version.price_tiers.is_empty() {
        let _ = writeln!(text, "price_tiers = [{}]", tiers(&version.price_tiers));
    }
    if !version.price_hours.is_empty() {
        let parts = version.price_hours.iter().filter_map(hours);
        let _ = writeln!(text, "price_hours = [\n{}]", parts.collect::<String>());
    }
    for (name, tier) in &version.service_tiers {
        if let Some(price) = &tier.price {
            let name = name.as_str();
            let _ = write!(text, "service_tiers.{name} = {{ price = {}", rates(price));
            if !tier.price_tiers.is_empty() {
                let _ = write!(text, ", price_tiers = [{}]", tiers(&tier.price_tiers));
            }
            text.push_str(" }\n");
        }
    }
}

/// A part of the week on a line of its own. Updates write prices, never factors.
fn hours(part: &HoursFile) -> Option<String> {
    let mut members = Vec::new();
    let times = [
        ("from", &part.from),
        ("to", &part.to),
        ("time_zone", &part.time_zone),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            members.push(format!("{name} = {}", quoted(time)));
        }
    }
    if !part.days.is_empty() {
        let days: Vec<String> = part.days.iter().map(|day| quoted(day)).collect();
        members.push(format!("days = [{}]", days.join(", ")));
    }
    members.push(format!("price = {}", rates(part.price.as_ref()?)));
    if !part.price_tiers.is_empty() {
        members.push(format!("price_tiers = [{}]", tiers(&part.price_tiers)));
    }
    Some(format!("    {{ {} }},\n", members.join(", ")))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn tiers(tiers: &[TierFile]) -> String {
    let tiers = tiers.iter().map(|tier| {
        format!(
            "{{ above_prompt_tokens = {}, whole_request = {}, price = {} }}",
            tier.above_prompt_tokens,
            tier.whole_request,
            rates(&tier.price)
        )
    });
    tiers.collect::<Vec<_>>().join(", ")
}

fn rates(rates: &Rates) -> String {
    let rates = rates.all().into_iter();
    let members: Vec<String> = rates
        .map(|(name, rate)| format!("{name} = \"{rate}\""))
        .collect();
    format!("{{ {} }}", members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_HAND: &str = "# Mine.\n[[prices]]\nmodel = \"a/*\"\nprice = { request = \"1\" }\n\n[[markups]]\nfactor = \"1.2\"";

    fn entry(valid_from: &str, price: &str) -> Entry {
        Entry {
            model: "b/m".to_owned(),
            valid_from: valid_from.to_owned(),
            version: toml::from_str(price).unwrap(),
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_a_persons_part_stays() {
        let price = "price = { prompt = \"1.5\", completion = \"2\", cached_prompt = \"0\" }\n\
            price_tiers = [{ above_prompt_tokens = 9, price = { prompt = \"3\", completion = \"4\" } }]\n\
            service_tiers.flex = { price = { prompt = \"1\", completion = \"1\" }, price_tiers = [{ above_prompt_tokens = 9, price = { prompt = \"2\", completion = \"2\" } }] }\n";
        let new = entry("2026-12-01", price);
        let text = OwnFile::parse(BY_HAND).unwrap().with(vec![new.clone()]);
        assert!(text.starts_with(BY_HAND));
        let read = OwnFile::parse(&text).unwrap();
        let written = &read.written[0];
        assert_eq!(
            (&written.model, &written.valid_from),
            (&new.model, &new.valid_from)
        );
        assert_eq!(written.version.price_tiers, new.version.price_tiers);
        assert_eq!(written.version.service_tiers, new.version.service_tiers);
        assert!(read.has_by_hand("a/x") && !read.has_by_hand("b/m"));
        // The whole is a file of own prices, markups and all.
        let whole: OwnPrices = toml::from_str(&text).unwrap();
        assert_eq!(whole.prices.len(), 2);
        assert_eq!(read.with(Vec::new()), text);
    }

    #[test]
    fn of_the_past_only_what_still_holds_is_kept() {
        let price =
            |prompt: &str| format!("price = {{ prompt = \"{prompt}\", completion = \"1\" }}");
        let mut text = String::new();
        for (day, prompt) in [
            ("2026-01-01", "1"),
            ("2026-03-01", "2"),
            ("2026-02-01", "3"),
            ("2026-02-01", "4"),
            ("2026-04-01", "5"),
        ] {
            text = OwnFile::parse(&text)
                .unwrap()
                .with(vec![entry(day, &price(prompt))]);
        }
        let days: Vec<(String, String)> = OwnFile::parse(&text)
            .unwrap()
            .written
            .into_iter()
            .map(|one| (one.valid_from, one.version.price.prompt.to_string()))
            .collect();
        let expected = [("2026-02-01", "4"), ("2026-04-01", "5")];
        assert_eq!(
            days,
            expected.map(|(day, prompt)| (day.to_owned(), prompt.to_owned()))
        );
    }

    #[test]
    fn a_file_is_replaced_in_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        assert!(OwnFile::read(&path).unwrap().written.is_empty());
        for text in ["one", "two"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(OwnFile::read(&path).unwrap_err().contains("own.toml"));
        // Who may read it stays, too.
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        replace(&path, "three").unwrap();
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
        let large = folder.path().join("large.toml");
        File::create(&large)
            .unwrap()
            .set_len(FILE_BYTES_MAX + 1)
            .unwrap();
        assert!(OwnFile::read(&large).unwrap_err().contains("16 MiB"));
        assert!(replace(&folder.path().join("no/own.toml"), "x").is_err());
    }
}
