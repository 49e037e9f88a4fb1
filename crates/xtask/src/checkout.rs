//! The checkout that a chore works on: its root, its tracked files, its provider files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::report::Failure;

/// The root of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The workspace that holds the current directory.
    pub(crate) fn find() -> Result<Self, Failure> {
        let start = env::current_dir().map_err(Failure::file("."))?;
        for directory in start.ancestors() {
            let manifest = directory.join("Cargo.toml");
            if fs::read_to_string(&manifest).is_ok_and(|text| text.contains("[workspace]")) {
                return Ok(Self {
                    root: directory.to_path_buf(),
                });
            }
        }
        Err(Failure::NoWorkspace(start))
    }

    /// The absolute path of `relative`.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// The text of a file given by its path below the root.
    pub(crate) fn read(&self, relative: impl AsRef<Path>) -> Result<String, Failure> {
        let path = self.path(relative);
        fs::read_to_string(&path).map_err(Failure::file(path))
    }

    /// Writes a file, and says whether that changed it.
    pub(crate) fn write(&self, relative: impl AsRef<Path>, text: &str) -> Result<bool, Failure> {
        let path = self.path(relative);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        fs::write(&path, text).map_err(Failure::file(path))?;
        Ok(true)
    }

    /// Every file that git tracks or would track, by its path below the root, sorted.
    pub(crate) fn files(&self) -> Result<Vec<String>, Failure> {
        let arguments = [
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ];
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.root)
            .output()
            .map_err(|error| Failure::Program {
                program: "git ls-files".to_owned(),
                what: error.to_string(),
            })?;
        if !output.status.success() {
            return Err(Failure::Program {
                program: "git ls-files".to_owned(),
                what: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        let listed = String::from_utf8_lossy(&output.stdout);
        let mut files: Vec<String> = listed
            .split('\0')
            .filter(|name| !name.is_empty() && self.path(name).is_file())
            .map(str::to_owned)
            .collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The provider files, by their path below the root, sorted.
    pub(crate) fn provider_files(&self) -> Result<Vec<String>, Failure> {
        let directory = self.path("providers");
        let mut files = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Failure::file(&directory))? {
            let entry = entry.map_err(Failure::file(&directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".toml") {
                files.push(format!("providers/{name}"));
            }
        }
        files.sort();
        Ok(files)
    }
}
