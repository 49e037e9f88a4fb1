//! Where the PostgreSQL server's programs are.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ClusterError;

/// A folder that holds all the programs needed.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
}

const NEEDED: [&str; 6] = [
    "initdb",
    "postgres",
    "psql",
    "pg_isready",
    "pg_basebackup",
    "pg_ctl",
];
const DEBIAN: &str = "/usr/lib/postgresql";

impl Binaries {
    /// Looks in `PATH`, asks `pg_config`, then takes the highest version of Debian's layout.
    pub(crate) fn find() -> Result<Self, ClusterError> {
        from_path(env::var_os("PATH").as_deref())
            .or_else(from_pg_config)
            .or_else(|| from_debian(Path::new(DEBIAN)))
            .map(|folder| Self { folder })
            .ok_or(ClusterError::ServerNotFound)
    }

    /// A command with an environment of its own: `PGHOST` or `PGOPTIONS` of the caller must not
    /// reach it, and its messages are in English.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.env_clear().env("LC_ALL", "C").stdin(Stdio::null());
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }
}

/// `PATH` often holds links to single programs; the folder that they point into has the rest.
fn from_path(path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?).find_map(|folder| {
        let real = fs::canonicalize(folder.join("initdb")).ok()?;
        [Some(folder.as_path()), real.parent()]
            .into_iter()
            .flatten()
            .find(|folder| complete(folder))
            .map(Path::to_path_buf)
    })
}

fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    complete(&folder).then_some(folder)
}

fn from_debian(root: &Path) -> Option<PathBuf> {
    fs::read_dir(root)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry
                .file_name()
                .to_str()?
                .split('.')
                .next()?
                .parse()
                .ok()?;
            let folder = entry.path().join("bin");
            complete(&folder).then_some((version, folder))
        })
        .max_by_key(|(version, _)| *version)
        .map(|(_, folder)| folder)
}

fn complete(folder: &Path) -> bool {
    NEEDED.iter().all(|name| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn installation(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for name in NEEDED {
            fs::write(folder.join(name), "").unwrap();
        }
    }

    #[test]
    fn the_highest_complete_version_wins() {
        let root = tempfile::tempdir().unwrap();
        installation(&root.path().join("9.6/bin"));
        installation(&root.path().join("15/bin"));
        fs::create_dir_all(root.path().join("17/bin")).unwrap(); // client packages only
        fs::create_dir_all(root.path().join("common")).unwrap();
        assert_eq!(from_debian(root.path()), Some(root.path().join("15/bin")));
    }

    #[test]
    fn a_link_in_path_leads_to_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(root.path()).unwrap().join("15/bin");
        installation(&real);
        let links = root.path().join("links");
        fs::create_dir(&links).unwrap();
        symlink(real.join("initdb"), links.join("initdb")).unwrap();
        assert_eq!(from_path(Some(links.as_os_str())), Some(real));
    }

    #[test]
    fn nothing_found_names_the_package() {
        assert_eq!(from_path(Some(OsStr::new("/nonexistent"))), None);
        assert_eq!(from_debian(Path::new("/nonexistent")), None);
        let text = ClusterError::ServerNotFound.to_string();
        assert!(text.contains("apt-get install -y postgresql"), "{text}");
    }
}
