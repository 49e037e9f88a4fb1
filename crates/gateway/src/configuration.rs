//! Where settings and provider files come from: `tollway.toml`, the environment, flags, and the built-in files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::{
    cli::Flags,
    own_prices,
    provider_file::{BUILTIN_PROVIDERS, ProviderFile},
    settings::{Finding, Settings},
};

/// The configuration file that is read where none is named.
const DEFAULT_FILE: &str = "tollway.toml";
/// Names the configuration file.
const FILE_VARIABLE: &str = "TOLLWAY_CONFIG";
/// A configuration or provider file at most, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Provider files of a directory at most.
const FILES_MAX: usize = 1000;

/// The environment: names and values.
pub type Environment = BTreeMap<String, String>;

/// This process's environment. A variable of ours that is no text is a finding; others are none
/// of our business.
#[must_use]
pub fn environment() -> (Environment, Vec<Finding>) {
    let mut variables = Environment::new();
    let mut findings = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                variables.insert(name, value);
            }
            Err(_) if name.starts_with("TOLLWAY_") || name == "DATABASE_URL" => {
                findings.push(Finding {
                    place: format!("environment variable {name}"),
                    line: None,
                    message: "is not UTF-8; write it again".into(),
                });
            }
            Err(_) => {}
        }
    }
    (variables, findings)
}

/// Settings out of file, environment and flags, each overriding the one before, and the provider
/// files: the built-in ones, and those of the directory in place of built-in ones of their name.
#[must_use]
pub fn load(
    flags: &Flags,
    environment: &Environment,
) -> (Settings, Vec<(String, ProviderFile)>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut settings = settings(flags, environment, &mut findings);
    let mut files = provider_files(settings.providers.as_deref(), &mut findings);
    if let Some(path) = &settings.prices {
        settings.markups = own_prices::apply(path, &mut files, &mut findings);
    }
    (settings, files, findings)
}

/// Settings alone, for commands that need no provider.
#[must_use]
pub fn settings(flags: &Flags, environment: &Environment, findings: &mut Vec<Finding>) -> Settings {
    let mut settings = Settings::default();
    let named = flags.config.clone().or_else(|| {
        environment
            .get(FILE_VARIABLE)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    });
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    match read_text(&path) {
        Ok(text) => settings.apply_toml(&path.display().to_string(), &text, findings),
        // Without a file by the usual name, the defaults are what is wanted.
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => findings.push(unreadable(&path, &error)),
    }
    let variables = environment.iter().map(|(n, v)| (n.clone(), v.clone()));
    settings.apply_environment(variables, findings);
    for (flag, name, value) in flags.settings() {
        if let Err(message) = settings.apply_named(name, &value) {
            findings.push(Finding {
                place: flag.into(),
                line: None,
                message,
            });
        }
    }
    settings
}

fn provider_files(
    directory: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> Vec<(String, ProviderFile)> {
    let mut files = BTreeMap::new();
    for (name, text) in BUILTIN_PROVIDERS {
        match ProviderFile::parse(&format!("built-in {name}"), text) {
            Ok(file) => {
                files.insert(file.name.clone(), (format!("built-in {name}"), file));
            }
            Err(wrong) => findings.extend(wrong),
        }
    }
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    for path in directory
        .map(|path| listed(path, findings))
        .unwrap_or_default()
    {
        let place = path.display().to_string();
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) => {
                findings.push(unreadable(&path, &error));
                continue;
            }
        };
        match ProviderFile::parse(&place, &text) {
            Ok(file) => {
                if let Some(first) = own.insert(file.name.clone(), place.clone()) {
                    findings.push(Finding {
                        message: format!(
                            "provider {:?} is in {first} too; give one another name",
                            file.name
                        ),
                        place: place.clone(),
                        line: None,
                    });
                }
                files.insert(file.name.clone(), (place, file));
            }
            Err(wrong) => findings.extend(wrong),
        }
    }
    files.into_values().collect()
}

/// The provider files of a directory, in the order of names.
fn listed(directory: &Path, findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            findings.push(unreadable(directory, &error));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    paths.sort();
    if paths.len() > FILES_MAX {
        findings.push(Finding {
            place: directory.display().to_string(),
            line: None,
            message: format!("has more than {FILES_MAX} provider files; put some elsewhere"),
        });
        paths.truncate(FILES_MAX);
    }
    paths
}

/// Reads a text, bounded: a wrong path may lead to anything.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> Finding {
    Finding {
        place: path.display().to_string(),
        line: None,
        message: format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = "name = \"acme\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n";

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn texts(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let text = "listen = \"127.0.0.1:1\"\nrequests_max = 7\ntop_up_url = \"file\"\n";
        fs::write(&file, text).unwrap();
        let flags = Flags {
            listen: Some("127.0.0.1:3".into()),
            demo: true,
            ..Flags::default()
        };
        let variables = environment(&[
            ("TOLLWAY_CONFIG", file.to_str().unwrap()),
            ("TOLLWAY_LISTEN", "127.0.0.1:2"),
            ("TOLLWAY_TOP_UP_URL", "environment"),
        ]);
        let (settings, _, findings) = load(&flags, &variables);
        assert!(findings.is_empty(), "{:?}", texts(&findings));
        assert_eq!(settings.listen.port(), 3);
        assert_eq!(settings.requests_max, 7);
        assert_eq!(settings.top_up_url.as_deref(), Some("environment"));
        assert!(settings.demo);
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let flags = Flags {
            config: Some("/nowhere/c.toml".into()),
            ..Flags::default()
        };
        let (_, _, findings) = load(&flags, &Environment::new());
        assert!(texts(&findings)[0].starts_with("/nowhere/c.toml: cannot be read"));
    }

    #[test]
    fn a_wrong_flag_is_named() {
        let flags = Flags {
            listen: Some("here".into()),
            ..Flags::default()
        };
        let (_, _, findings) = load(&flags, &Environment::new());
        assert!(texts(&findings)[0].starts_with("--listen: expected an address"));
    }

    #[test]
    fn a_file_of_the_directory_replaces_the_built_in_one_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("mine.toml", &ACME.replace("acme", "openai"));
        write("new.toml", ACME);
        write("ignored.txt", "x");
        let flags = Flags {
            providers: Some(folder.path().into()),
            ..Flags::default()
        };
        let (_, files, findings) = load(&flags, &Environment::new());
        assert!(findings.is_empty(), "{:?}", texts(&findings));
        assert_eq!(files.len(), BUILTIN_PROVIDERS.len() + 1);
        let (place, openai) = files.iter().find(|(_, f)| f.name == "openai").unwrap();
        assert!(place.ends_with("mine.toml") && openai.models.is_empty());
    }

    #[test]
    fn wrong_provider_files_are_told_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
        write("a.toml", ACME.as_bytes());
        write("b.toml", ACME.as_bytes());
        write("c.toml", ACME.replace("openai", "klingon").as_bytes());
        write("d.toml", b"\xff");
        fs::create_dir(folder.path().join("e.toml")).unwrap();
        let mut findings = Vec::new();
        provider_files(Some(folder.path()), &mut findings);
        let texts = texts(&findings);
        for part in [
            "a.toml too",
            "c.toml:2: unknown variant",
            "d.toml: cannot",
            "e.toml: cannot",
        ] {
            assert!(texts.iter().any(|t| t.contains(part)), "{part}: {texts:?}");
        }
        assert_eq!(texts.len(), 4, "{texts:?}");
    }
}
