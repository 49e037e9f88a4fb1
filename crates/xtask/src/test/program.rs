//! Runs one program within a time limit: what it prints goes to the console, to a log file and to the tally.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead as _, BufReader, PipeReader, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::{
    say,
    tally::{Runner, Tally},
};
use crate::report::Failure;

/// Lines that may wait to be printed.
const LINES_MAX: usize = 1024;
/// How often the program is looked at while it prints nothing.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a program left running may still print after its end.
const LEFTOVERS_MAX: Duration = Duration::from_secs(5);

/// A program to run.
pub(crate) struct Program {
    command: Command,
    runner: Runner,
    limit: Duration,
    quiet: bool,
}

impl Program {
    /// A program with its arguments, bounded in time.
    pub(crate) fn new(
        program: impl AsRef<Path>,
        arguments: &[&str],
        runner: Runner,
        limit: Duration,
    ) -> Self {
        let mut command = Command::new(program.as_ref());
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env("CARGO_TERM_COLOR", "never")
            .env("NO_COLOR", "1")
            .env_remove("FORCE_COLOR");
        // What `cargo run` says about this program is wrong for others: some build scripts look
        // at it and would make everything be built again.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        Self {
            command,
            runner,
            limit,
            quiet: false,
        }
    }

    /// What it prints goes to its log only.
    pub(crate) fn quietly(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// In this folder.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With this variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end; `log` gets a copy of what it prints.
    pub(crate) fn run(mut self, log: &Path) -> Result<Tally, Failure> {
        let name = self.command.get_program().to_string_lossy().into_owned();
        let failed = |what: String| Failure::Program {
            program: name.clone(),
            what,
        };
        let (reader, writer) = io::pipe().map_err(|error| failed(error.to_string()))?;
        let second = writer
            .try_clone()
            .map_err(|error| failed(error.to_string()))?;
        let child = self
            .command
            .stdout(writer)
            .stderr(second)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        // The writers' copies here must go, or the pipe never ends.
        drop(self.command);
        let (lines, printed) = sync_channel(LINES_MAX);
        thread::spawn(move || forward(reader, &lines));
        let mut log = Log::create(log)?;
        let mut tally = Tally::default();
        let status = follow(child, &printed, self.limit, |line| {
            if !self.quiet {
                say(line);
            }
            log.line(line);
            tally.read(self.runner, line);
        })
        .map_err(failed)?;
        Ok(tally.ended(self.runner, status.success()))
    }
}

/// A log file; a line that cannot be written is on the console all the same.
struct Log(fs::File);

impl Log {
    fn create(path: &Path) -> Result<Self, Failure> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Failure::file(folder))?;
        }
        fs::File::create(path)
            .map(Self)
            .map_err(Failure::file(path))
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.0, "{line}");
    }
}

fn forward(reader: PipeReader, lines: &SyncSender<String>) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader
        .read_until(b'\n', &mut bytes)
        .is_ok_and(|read| read > 0)
    {
        let line = String::from_utf8_lossy(&bytes);
        if lines.send(line.trim_end().to_owned()).is_err() {
            return;
        }
        bytes.clear();
    }
}

/// Hands on what is printed until the program has ended, or kills it when its time is up.
fn follow(
    mut child: Child,
    printed: &Receiver<String>,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + limit;
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        let closed = match printed.recv_timeout(LOOK_EVERY) {
            Ok(text) => {
                line(&text);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        if ended.is_none() {
            let status = child.try_wait().map_err(|error| error.to_string())?;
            ended = status.map(|status| (status, Instant::now() + LEFTOVERS_MAX));
        }
        match ended {
            // What it left running may hold the pipe open; that is waited for only so long.
            Some((status, until)) if closed || Instant::now() > until => return Ok(status),
            Some(_) => {}
            None if Instant::now() > deadline => {
                kill_with_children(&mut child);
                return Err(format!(
                    "took longer than {} s and was ended",
                    limit.as_secs()
                ));
            }
            None if closed => thread::sleep(LOOK_EVERY),
            None => {}
        }
    }
}

/// Kills a program and all that it started, so that no server outlives its test.
fn kill_with_children(child: &mut Child) {
    let parents = parents();
    let mut doomed = vec![child.id()];
    let mut place = 0;
    while let Some(parent) = doomed.get(place).copied() {
        let children = parents.iter().filter(|(_, of)| **of == parent);
        doomed.extend(children.map(|(pid, _)| *pid));
        place += 1;
    }
    let pids = doomed.iter().skip(1).map(u32::to_string);
    let _ = Command::new("kill")
        .arg("-KILL")
        .args(pids)
        .stderr(Stdio::null())
        .status();
    let _ = child.kill();
    let _ = child.wait();
}

/// Every process and its parent.
fn parents() -> BTreeMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // pid (name, which may hold anything) state parent …
            let (_, after) = stat.rsplit_once(')')?;
            let parent = after.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Result<Tally, Failure>, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/a.log");
        let result = Program::new("sh", &["-c", script], Runner::LastLine, limit).run(&log);
        (result, fs::read_to_string(log).unwrap())
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn both_outputs_are_read_and_kept() {
        let (tally, log) = shell("echo one; echo two >&2; printf '3 passed, 0 failed'", LONG);
        assert_eq!(tally.unwrap().passed, 3);
        assert_eq!(log, "one\ntwo\n3 passed, 0 failed\n");
    }

    #[test]
    fn an_exit_code_counts() {
        let (tally, _) = shell("echo 3 passed, 0 failed; exit 3", LONG);
        assert_eq!(tally.unwrap().failed, 1);
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        let script = "sleep 600 & echo $!; wait";
        let (result, log) = shell(script, Duration::from_secs(1));
        assert!(result.unwrap_err().to_string().contains("longer than 1 s"));
        let sleeper: u32 = log.trim().parse().unwrap();
        let begun = Instant::now();
        while Path::new(&format!("/proc/{sleeper}/cmdline")).exists()
            && !fs::read(format!("/proc/{sleeper}/cmdline"))
                .unwrap_or_default()
                .is_empty()
        {
            assert!(begun.elapsed() < LONG, "{sleeper} still runs");
        }
    }

    #[test]
    fn a_server_left_running_does_not_hold_the_step() {
        let begun = Instant::now();
        let (tally, _) = shell("sleep 20 & echo 1 passed, 0 failed", LONG);
        assert_eq!(tally.unwrap().passed, 1);
        assert!(begun.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::new("no-such-program", &[], Runner::ExitCode, LONG);
        let error = program.run(&folder.path().join("a.log")).unwrap_err();
        assert!(
            error.to_string().starts_with("no-such-program: "),
            "{error}"
        );
    }
}
