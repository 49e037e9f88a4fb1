//! A real server: started, filled, stopped, killed, started again, and gone afterwards.

#![expect(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use throwaway_postgres::{Cluster, ClusterError, Options, SERVER_VARIABLE, Stop, shared};

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Also children of a dead parent: all of a server's processes work in its data folder, which the
/// system calls "PATH (deleted)" once it is gone.
fn processes_in(data: &Path) -> usize {
    let here = |cwd: PathBuf| cwd.to_string_lossy().starts_with(&*data.to_string_lossy());
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(here))
        .count()
}

#[test]
fn a_durable_server_with_room_for_many_connections() {
    let cluster = Cluster::start().unwrap();
    let show = |name: &str| cluster.sql(&format!("SHOW {name}")).unwrap();
    assert_eq!(show("fsync"), "on");
    assert_eq!(show("synchronous_commit"), "on");
    assert_eq!(show("max_connections"), "200");
    assert_eq!(show("listen_addresses"), "127.0.0.1");
    assert_eq!(show("server_encoding"), "UTF8");
    assert_eq!(show("data_directory"), cluster.data_dir().to_string_lossy());
    assert_eq!(show("port"), cluster.port().to_string());
    assert!(cluster.pid().is_some());
}

#[test]
fn options_reach_the_server() {
    let options = Options::default()
        .without_fsync()
        .setting("max_connections", "33");
    let cluster = Cluster::start_with(options).unwrap();
    assert_eq!(cluster.sql("SHOW fsync").unwrap(), "off");
    assert_eq!(cluster.sql("SHOW max_connections").unwrap(), "33");
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let options = Options::default().setting("no_such_setting", "1");
    let error = Cluster::start_with(options).unwrap_err();
    assert!(matches!(error, ClusterError::EndedEarly { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn databases_are_apart_and_made_by_many_at_once() {
    let cluster = Cluster::start().unwrap();
    let urls: Vec<String> = thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| cluster.fresh_database().unwrap()))
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap())
            .collect()
    });
    let names = cluster.sql("SELECT datname FROM pg_database").unwrap();
    for url in &urls {
        let (server, name) = url.rsplit_once('/').unwrap();
        assert_eq!(cluster.url(name), *url);
        assert!(
            server.starts_with("postgres://postgres@127.0.0.1:"),
            "{server}"
        );
        assert!(names.lines().any(|known| known == name), "{name}");
    }
    let again = cluster
        .create_database("mine")
        .and(cluster.create_database("mine"));
    assert!(again.unwrap_err().to_string().contains("already exists"));
}

#[test]
fn what_was_committed_survives_every_way_to_stop() {
    let cluster = Cluster::start().unwrap();
    let (url, data) = (cluster.url("postgres"), cluster.data_dir());
    cluster.sql("CREATE TABLE marks (n int)").unwrap();
    let ways: [fn(&Cluster); 5] = [
        |cluster| cluster.stop(Stop::Fast).unwrap(),
        |cluster| cluster.stop(Stop::Immediate).unwrap(),
        |cluster| cluster.kill9().unwrap(),
        |cluster| cluster.kill9().unwrap(),
        |_running| (),
    ];
    for (round, way) in ways.into_iter().enumerate() {
        cluster.sql("INSERT INTO marks VALUES (1)").unwrap();
        let pid = cluster.pid();
        way(&cluster);
        if round + 1 < ways.len() {
            assert_eq!(cluster.pid(), None);
            assert_eq!(processes_in(&data), 0);
            assert!(!data.join("postmaster.pid").exists());
            assert!(cluster.sql("SELECT 1").is_err());
        }
        cluster.restart().unwrap();
        assert_ne!(cluster.pid(), pid);
        assert_eq!(cluster.url("postgres"), url);
        let count = cluster.sql("SELECT count(*) FROM marks").unwrap();
        assert_eq!(count, (round + 1).to_string());
    }
}

#[test]
fn a_kill_reaches_a_busy_connection() {
    // A loop never looks whether the first process still lives: left alone it would run on.
    let cluster = Arc::new(Cluster::start().unwrap());
    let count = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'";
    let busy = Arc::clone(&cluster);
    let busy = thread::spawn(move || busy.sql("DO 'BEGIN LOOP END LOOP; END'"));
    until("the loop runs", || cluster.sql(count).unwrap() == "1");
    cluster.kill9().unwrap();
    assert_eq!(processes_in(&cluster.data_dir()), 0);
    assert!(busy.join().unwrap().is_err());
    cluster.restart().unwrap();
    assert_eq!(cluster.sql("SELECT 1").unwrap(), "1");
}

#[test]
fn a_server_killed_from_outside_restarts() {
    let cluster = Cluster::start().unwrap();
    let pid = cluster.pid().unwrap().to_string();
    let killed = Command::new("sh")
        .args(["-c", "kill -KILL $0", &pid])
        .status()
        .unwrap();
    assert!(killed.success());
    until("its end is seen", || cluster.pid().is_none());
    cluster.restart().unwrap();
    assert_eq!(cluster.sql("SELECT 1").unwrap(), "1");
}

#[test]
fn dropping_leaves_nothing() {
    let cluster = Cluster::start().unwrap();
    let data = cluster.data_dir();
    let folder = data.parent().unwrap().to_path_buf();
    assert!(processes_in(&data) > 0);
    drop(cluster);
    assert_eq!(processes_in(&data), 0);
    assert!(!folder.exists());
}

/// Starts the program of this crate and reads the address it prints.
fn program() -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_throwaway-postgres"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    (child, url.trim().to_owned())
}

fn ask(url: &str, statement: &str) -> Option<String> {
    let output = Command::new("psql")
        .args(["-XAtw", "-d", url, "-c", statement])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.trim().to_owned())
}

#[test]
fn a_crash_of_the_process_that_started_it_leaves_nothing() {
    let (mut program, url) = program();
    let data = PathBuf::from(ask(&url, "SHOW data_directory").unwrap());
    assert!(processes_in(&data) > 0);
    program.kill().unwrap(); // SIGKILL: it cannot clean up
    program.wait().unwrap();
    let folder = data.parent().unwrap();
    until("the watchdog has cleaned up", || !folder.exists());
    assert_eq!(processes_in(&data), 0);
}

#[test]
fn a_crash_while_the_server_is_down_leaves_nothing() {
    // The re-run of this test, under the variable, crashes with its server stopped.
    const VARIABLE: &str = "THROWAWAY_POSTGRES_CRASH";
    if std::env::var_os(VARIABLE).is_some() {
        let cluster = Cluster::start().unwrap();
        cluster.stop(Stop::Fast).unwrap();
        eprintln!("folder {}", cluster.data_dir().parent().unwrap().display());
        std::process::abort();
    }
    let name = "a_crash_while_the_server_is_down_leaves_nothing";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    let folder = text.lines().find_map(|line| line.strip_prefix("folder "));
    let folder = PathBuf::from(folder.unwrap_or_else(|| panic!("{text}")));
    until("the watchdog has cleaned up", || !folder.exists());
}

#[test]
fn the_program_runs_a_command_with_the_address_and_passes_its_code_on() {
    let output = Command::new(env!("CARGO_BIN_EXE_throwaway-postgres"))
        .args(["sh", "-c", "echo \"$TOLLWAY_TEST_POSTGRES\"; exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("postgres://postgres@127.0.0.1:"), "{text}");
}

#[test]
fn tests_share_a_server_and_not_a_database() {
    // Under a named server (a re-run of this test) or, without one, on a cluster of this process.
    let (one, two) = (shared().unwrap(), shared().unwrap());
    assert_ne!(one, two);
    assert_eq!(
        ask(one.url(), "SELECT current_database()").unwrap(),
        one.name()
    );
    let place = |url| ask(url, "SHOW data_directory").unwrap();
    assert_eq!(place(one.url()), place(two.url()));
    if let Ok(server) = std::env::var(SERVER_VARIABLE) {
        assert_eq!(place(one.url()), place(&server));
        return;
    }
    let name = "tests_share_a_server_and_not_a_database";
    let mut rerun = Command::new(env!("CARGO_BIN_EXE_throwaway-postgres"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    rerun
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(rerun.wait().unwrap().success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}
