//! A copy of the checkout, so that the code a person works on is never touched.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
};

use super::list::Mutation;
use crate::{checkout::Checkout, report::Failure};

/// The copy; what is built of it is kept for the next time.
pub(crate) struct Tree {
    root: PathBuf,
    target: PathBuf,
    logs: PathBuf,
    runs: Cell<u32>,
}

/// A file without its guard; put back when this is dropped.
pub(crate) struct Mutated {
    path: PathBuf,
    original: String,
}

impl Drop for Mutated {
    fn drop(&mut self) {
        // A copy that cannot be mended is made anew by the next run.
        let _ = fs::write(&self.path, &self.original);
    }
}

impl Tree {
    /// Copies every file that git tracks or would track; files that are as they were keep their
    /// times, so that little is built anew.
    pub(crate) fn copy(checkout: &Checkout) -> Result<Self, Failure> {
        let base = checkout.path("target/mutate");
        let tree = Self {
            root: base.join("tree"),
            target: base.join("build"),
            logs: base.join("logs"),
            runs: Cell::new(0),
        };
        let files = checkout.files()?;
        for file in &files {
            let (from, to) = (checkout.path(file), tree.root.join(file));
            let bytes = fs::read(&from).map_err(Failure::file(&from))?;
            if fs::read(&to).is_ok_and(|old| old == bytes) {
                continue;
            }
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(Failure::file(folder))?;
            }
            // With its permissions: some are scripts.
            fs::copy(&from, &to).map_err(Failure::file(&to))?;
        }
        tree.remove_others(&tree.root, checkout)?;
        Ok(tree)
    }

    /// The root of the copy.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the copy is built.
    pub(crate) fn target(&self) -> PathBuf {
        self.target.clone()
    }

    /// A log for the next program; its first line cannot name it, so its file does.
    pub(crate) fn log(&self, what: String) -> PathBuf {
        let run = self.runs.get();
        self.runs.set(run + 1);
        let name: String = what
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(80)
            .collect();
        self.logs.join(format!("{run:03}-{name}.log"))
    }

    /// Takes a guard out.
    pub(crate) fn mutate(&self, mutation: &Mutation) -> Result<Mutated, Failure> {
        let path = self.root.join(&mutation.file);
        let original = fs::read_to_string(&path).map_err(Failure::file(&path))?;
        let text = mutation.apply(&original)?;
        let mutated = Mutated {
            path: path.clone(),
            original,
        };
        fs::write(&path, text).map_err(Failure::file(path))?;
        Ok(mutated)
    }

    /// Removes what the checkout no longer has.
    fn remove_others(&self, folder: &Path, checkout: &Checkout) -> Result<(), Failure> {
        let read = |folder: &Path| -> io::Result<Vec<PathBuf>> {
            fs::read_dir(folder)?
                .map(|entry| Ok(entry?.path()))
                .collect()
        };
        for path in read(folder).map_err(Failure::file(folder))? {
            if path.is_dir() {
                self.remove_others(&path, checkout)?;
                continue;
            }
            let gone = path
                .strip_prefix(&self.root)
                .is_ok_and(|relative| !checkout.path(relative).exists());
            if gone {
                fs::remove_file(&path).map_err(Failure::file(&path))?;
            }
        }
        Ok(())
    }
}
