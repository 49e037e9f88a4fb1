//! The program itself in a process of its own, to be stopped and killed as operators and accidents do.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};

use tempfile::TempDir;

use crate::{ADMIN_KEY, CANARY_PROVIDER_KEY, KEY_VARIABLE, Remote, provider_texts};

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its books.
    pub database_url: String,
    /// Provider files: names and texts.
    pub providers: Vec<(String, String)>,
    /// Its environment, all of it.
    pub variables: Vec<(String, String)>,
    /// A file that what it logs is added to.
    pub log: Option<PathBuf>,
}

/// A running `tollway`. Dropped, it is killed.
pub struct Program {
    remote: Remote,
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    printed: String,
    _folder: TempDir,
}

impl Program {
    /// Starts it on these books, before the provider at this address, and waits until it listens.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(database_url: &str, provider_url: &str) -> Self {
        Self::start_with(
            database_url,
            provider_url,
            &[("TOLLWAY_ADMIN_KEY", ADMIN_KEY)],
        )
    }

    /// The same with variables of the test's own.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_with(database_url: &str, provider_url: &str, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self::launch(&Launch {
            database_url: database_url.to_owned(),
            providers: provider_texts(provider_url)
                .into_iter()
                .map(|(name, text)| (name.to_owned(), text))
                .collect(),
            variables: variables.iter().map(owned).collect(),
            log: None,
        })
    }

    /// Starts it as it is told, and waits until it listens.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn launch(launch: &Launch) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for (name, text) in &launch.providers {
            fs::write(folder.path().join(format!("{name}.toml")), text).expect("a file");
        }
        let log = launch.log.as_ref().map(|path| {
            let file = fs::File::options().create(true).append(true).open(path);
            Stdio::from(file.expect("a log file"))
        });
        let mut child = Command::new(built("tollway"))
            .env_clear()
            .envs(launch.variables.iter().map(|(name, value)| (name, value)))
            .env("DATABASE_URL", &launch.database_url)
            .env("TOLLWAY_LISTEN", "127.0.0.1:0")
            .env("TOLLWAY_PROVIDERS", folder.path())
            .env(KEY_VARIABLE, CANARY_PROVIDER_KEY)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.unwrap_or_else(Stdio::null))
            .spawn()
            .expect("tollway starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("text");
        let addr = address(&line).unwrap_or_else(|| panic!("no address in {line:?}"));
        Self {
            remote: Remote::new(addr),
            child,
            stdout: Some(stdout),
            printed: line,
            _folder: folder,
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name, such as `STOP`.
    ///
    /// # Panics
    /// The system would not let us.
    pub fn signal(&self, name: &str) {
        let signal = format!("-{name}");
        let sent = Command::new("kill")
            .args([&signal, &self.pid().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Panics
    /// The system would not let us.
    pub fn kill(mut self) {
        self.child.kill().expect("a process of ours");
        self.child.wait().expect("its end");
    }

    /// Stops it with SIGTERM; how it ended, and all that it printed on standard output.
    ///
    /// # Panics
    /// The system would not let us.
    #[must_use]
    pub fn terminate(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let mut printed = std::mem::take(&mut self.printed);
        if let Some(mut rest) = self.stdout.take() {
            rest.read_to_string(&mut printed).expect("text");
        }
        (self.child.wait().expect("its end"), printed)
    }
}

impl Deref for Program {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables of a [`Launch`] whose wall clock is what this file says, by libfaketime (the package
/// `faketime`); the monotonic clock goes on.
///
/// # Panics
/// The package is missing.
#[must_use]
pub fn clock_of(file: &Path) -> Vec<(String, String)> {
    let folders = fs::read_dir("/usr/lib").expect("a folder of libraries");
    let library = folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.is_file())
        .expect("the package faketime is missing: `apt-get install -y faketime`");
    let variable = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
    vec![
        variable("LD_PRELOAD", &library),
        variable("FAKETIME_TIMESTAMP_FILE", file),
        variable("FAKETIME_NO_CACHE", Path::new("1")),
        // Steps of NTP, like those of an operator, do not touch the monotonic clock.
        variable("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
        variable("NO_FAKE_STAT", Path::new("1")),
    ]
}

/// The program `tollway` without any variable of this process, for its commands.
#[must_use]
pub fn tollway() -> Command {
    let mut command = Command::new(built("tollway"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// A program of ours: `…/deps/http-0123` stands beside `…/tollway`.
///
/// # Panics
/// It was not built.
pub(crate) fn built(name: &str) -> PathBuf {
    let test = env::current_exe().expect("this program");
    let folder = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("a target folder");
    let path = folder.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p gateway -p auditor` with the same profile first",
        path.display()
    );
    path
}

fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.split_whitespace().next()?.parse().ok()
}
