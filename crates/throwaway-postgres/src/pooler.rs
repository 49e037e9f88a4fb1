//! PgBouncer in transaction mode before a server: few connections for many clients, and no session of one's own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::account::Account;
use crate::cluster::random_port;
use crate::error::{Doing, tail};
use crate::folder::Folder;
use crate::{Cluster, ClusterError, processes, psql};

const START_LIMIT: Duration = Duration::from_secs(10);
const PORT_ATTEMPTS_MAX: u32 = 16;
const LOG_BYTES: usize = 4_096;
/// Where Debian has it, which is in nobody's `PATH` but root's.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];

/// A running `pgbouncer`, gone when dropped.
#[derive(Debug)]
pub struct Pooler {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Pooler {
    /// Whether the program is there.
    #[must_use]
    pub fn is_installed() -> bool {
        find().is_ok()
    }

    /// Starts one in transaction mode, with so few connections to the server that clients change
    /// places all the time.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn before(cluster: &Cluster) -> Result<Self, ClusterError> {
        let program = find()?;
        let account = Account::choose()?;
        let folder = Folder::create(account)?;
        for _ in 0..PORT_ATTEMPTS_MAX {
            let port = random_port();
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
                continue;
            }
            let mut child = start(&program, account, &folder, cluster.port(), port)?;
            let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
            let answers = processes::wait_until(START_LIMIT, || {
                !matches!(child.try_wait(), Ok(None))
                    || psql::run(cluster.binaries(), &["-d", &url], "SELECT 1").is_ok()
            });
            if answers && matches!(child.try_wait(), Ok(None)) {
                return Ok(Self {
                    child,
                    port,
                    _folder: folder,
                });
            }
            let _ = (child.kill(), child.wait());
        }
        Err(ClusterError::TooSlow {
            doing: "starting pgbouncer",
            limit_s: START_LIMIT.as_secs(),
            log: tail(&fs::read(folder.log_path()).unwrap_or_default(), LOG_BYTES),
        })
    }

    /// The address of a database of the cluster, through the pooler.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find() -> Result<PathBuf, ClusterError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PLACES.map(PathBuf::from))
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
        .ok_or(ClusterError::PoolerNotFound)
}

fn start(
    program: &Path,
    account: Account,
    folder: &Folder,
    server: u16,
    port: u16,
) -> Result<Child, ClusterError> {
    let root = folder.root();
    let (users, settings) = (root.join("users.txt"), root.join("pgbouncer.ini"));
    // Nothing beyond what somebody who reads its manual would write: `ignore_startup_parameters`
    // is left out, for a client that needs it fails with the usual configuration.
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={server}\n\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = {}\npool_mode = transaction\n\
         default_pool_size = 3\nmax_client_conn = 500\nserver_login_retry = 0.2\n",
        users.display()
    );
    for (file, text) in [(&users, "\"postgres\" \"\"\n"), (&settings, text.as_str())] {
        fs::write(file, text).doing(|| "write pgbouncer's settings".to_owned())?;
        account.own(file)?;
    }
    let log = folder.open_log()?;
    let log_again = log
        .try_clone()
        .doing(|| "share pgbouncer's log".to_owned())?;
    let mut command = Command::new(program);
    command
        .arg(&settings)
        .current_dir(root)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_again);
    account
        .apply(&mut command)
        .spawn()
        .doing(|| "start pgbouncer".to_owned())
}
