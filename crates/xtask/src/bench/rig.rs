//! Compares this gateway with others under one load, with whatever of the load rig is installed.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use throwaway_postgres::Cluster;

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
    test::{Program, Runner, Tools, text},
};

/// The folder of the rig, where `--rig` does not name it.
const RIG_VARIABLE: &str = "TOLLWAY_BENCH_RIG";
/// Where the rig's provider listens.
const PROVIDER_URL: &str = "http://127.0.0.1:19100/v1";
/// For gateways that live as long as the bench.
const ADMIN_KEY: &str = "bench-admin-key-0123456789";
/// Until a gateway answers.
const START_MAX: Duration = Duration::from_secs(30);
/// Building an optimised program, and every scenario of every target.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
const RUN_MAX: Duration = Duration::from_secs(6 * 3600);

/// Which comparison is run.
#[derive(clap::Args)]
pub(super) struct Rig {
    /// The folder of the load rig, which has `run` and `targets/` [default: $TOLLWAY_BENCH_RIG].
    #[arg(long = "rig", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Scenarios, with commas between them; see the rig's README [default: all].
    #[arg(long)]
    only: Option<String>,
    /// How often each is measured; the table has the medians.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// Leave out the gateway on PostgreSQL.
    #[arg(long)]
    sqlite_only: bool,
}

/// What the rig can run beside this gateway: its name there, and the program without which it cannot.
struct Peer {
    name: &'static str,
    program: fn(&Path, &Path) -> PathBuf,
}

const PEERS: [Peer; 4] = [
    Peer {
        name: "nginx",
        program: |_, _| "nginx".into(),
    },
    Peer {
        name: "passthrough",
        program: |rig, _| rig.join("target/release/passthrough"),
    },
    Peer {
        name: "litellm",
        program: |_, peers| peers.join("litellm/venv/bin/litellm"),
    },
    Peer {
        name: "portkey",
        program: |_, peers| {
            peers.join("portkey/inst/node_modules/@portkey-ai/gateway/build/start-server.js")
        },
    },
];

/// A gateway that is stopped with this value.
struct Gateway {
    child: Child,
    /// As the rig wants to be told of it.
    added: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs what is there, and says what is not.
pub(super) fn run(checkout: &Checkout, rig: &Rig) -> Result<Report, Failure> {
    let mut report = Report::new();
    let folder = rig.folder.clone();
    let Some(folder) = folder.or_else(|| env::var_os(RIG_VARIABLE).map(PathBuf::from)) else {
        report.blame(format!(
            "which rig? Name its folder with --rig DIR or {RIG_VARIABLE}"
        ));
        return Ok(report);
    };
    let folder = folder.canonicalize().map_err(Failure::file(&folder))?;
    let there = installed(&folder, &mut report);
    if !report.all_well {
        return Ok(report);
    }
    let tools = Tools::new(checkout, "bench")?;
    let build = [
        "build",
        "--locked",
        "--release",
        "-p",
        "gateway",
        "--bin",
        "tollway",
    ];
    if tools.cargo(&build, Runner::ExitCode, BUILD_MAX)?.failed > 0 {
        report.blame("the gateway is not built");
        return Ok(report);
    }
    let work = tools.built("xtask-bench");
    fs::create_dir_all(work.join("providers")).map_err(Failure::file(&work))?;
    fs::write(work.join("providers/rig.toml"), provider()).map_err(Failure::file(&work))?;
    let tollway = tools.built("release/tollway");
    let database = work.join(format!("bench-{}.db", std::process::id()));
    let sqlite = format!("sqlite://{}", text(&database)?);
    let mut gateways = vec![start(&tollway, &work, "tollway", &sqlite)?];
    let cluster = if rig.sqlite_only {
        None
    } else {
        Some(tools.postgres()?)
    };
    if let Some(cluster) = &cluster {
        gateways.push(on_postgres(&tollway, &work, cluster)?);
    }
    let mut arguments: Vec<String> = there.iter().map(|peer| peer.name.to_owned()).collect();
    for gateway in &gateways {
        arguments.extend(["--add".to_owned(), gateway.added.clone()]);
    }
    arguments.extend(["--repeats".to_owned(), rig.repeats.to_string()]);
    if let Some(only) = &rig.only {
        arguments.extend(["--only".to_owned(), only.clone()]);
    }
    let out = text(&work)?.to_owned() + "/results";
    arguments.extend(["--out".to_owned(), out]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = Program::new(folder.join("run"), &arguments, Runner::ExitCode, RUN_MAX);
    if tools.run(program)?.failed > 0 {
        report.blame("the rig failed; what it said is above");
    }
    drop(gateways);
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", database.display()));
    }
    Ok(report)
}

/// What of the rig is there; blames the report for what nothing goes without.
fn installed(folder: &Path, report: &mut Report) -> Vec<&'static Peer> {
    for needed in ["run", "target/release/load", "target/release/mock-upstream"] {
        if !folder.join(needed).is_file() {
            report.blame(format!(
                "the rig has no {needed}: its README says how it is built"
            ));
        }
    }
    let peers = env::var_os("PEERS").map_or_else(|| folder.join("peers"), PathBuf::from);
    let (there, missing): (Vec<&Peer>, Vec<&Peer>) = PEERS
        .iter()
        .partition(|peer| is_there(&(peer.program)(folder, &peers)));
    for peer in missing {
        let program = (peer.program)(folder, &peers);
        report.say(format!(
            "left out: {} is not installed ({})",
            peer.name,
            program.display()
        ));
    }
    there
}

fn on_postgres(tollway: &Path, work: &Path, cluster: &Cluster) -> Result<Gateway, Failure> {
    let url = cluster
        .fresh_database()
        .map_err(|error| Failure::content("PostgreSQL", error))?;
    start(tollway, work, "tollway-pg", &url)
}

/// A provider file for the rig's own.
fn provider() -> String {
    format!(
        "name = \"rig\"\ndialect = \"openai\"\nbase_url = \"{PROVIDER_URL}\"\n[[models]]\n\
         id = \"mock-gpt\"\ncontext_window = 128000\nmax_output_tokens = 4096\n\
         price = {{ prompt = \"1\", completion = \"2\" }}\n"
    )
}

fn is_there(program: &Path) -> bool {
    if program.is_absolute() {
        return program.exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A gateway on the first core alone, as the rig starts its own, with a key that has credits.
fn start(tollway: &Path, work: &Path, name: &str, database: &str) -> Result<Gateway, Failure> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let listen = free.map_err(Failure::file("a free port"))?.to_string();
    let log_path = work.join(format!("{name}.log"));
    let log = fs::File::create(&log_path).map_err(Failure::file(&log_path))?;
    let mut command = if is_there(Path::new("taskset")) {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(tollway);
        command
    } else {
        Command::new(tollway)
    };
    let child = command
        .args(["--listen", &listen, "--database-url", database])
        .arg("--providers")
        .arg(work.join("providers"))
        .env("TOLLWAY_ADMIN_KEY", ADMIN_KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(Failure::file(tollway))?;
    let mut gateway = Gateway {
        child,
        added: String::new(),
    };
    let begun = Instant::now();
    let key = loop {
        if let Some(key) = key(tollway, &listen) {
            break key;
        }
        if begun.elapsed() > START_MAX {
            let why = format!("does not answer; its log is {}", log_path.display());
            return Err(Failure::content(name, why));
        }
        thread::sleep(Duration::from_millis(50));
    };
    let pid = gateway.child.id();
    gateway.added = format!(
        "{name},url=http://{listen}/v1/chat/completions,key={key},pid={pid},model=mock-gpt"
    );
    Ok(gateway)
}

/// A key of a gateway that answers already.
fn key(tollway: &Path, listen: &str) -> Option<String> {
    let output = Command::new(tollway)
        .args(["keys", "create", "--name", "bench", "--credits", "1000000"])
        .args(["--json", "--url", &format!("http://{listen}")])
        .env("TOLLWAY_ADMIN_KEY", ADMIN_KEY)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let key: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let secret = key.get("secret").or_else(|| key.get("key"))?;
    secret.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_by_path_or_by_name() {
        assert!(is_there(Path::new("sh")));
        assert!(!is_there(Path::new("no-such-program-here")));
        assert!(is_there(&env::current_exe().unwrap()));
        assert!(!is_there(Path::new("/no/such/program")));
    }

    #[test]
    fn the_provider_file_is_one() {
        let file: toml::Table = toml::from_str(&provider()).unwrap();
        assert_eq!(file["models"][0]["id"].as_str(), Some("mock-gpt"));
    }
}
