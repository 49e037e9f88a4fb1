//! What stands around a server: a standby, a pooler, a small disk, a proxy that breaks things.

#![expect(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use throwaway_postgres::{AtCommit, Cluster, ClusterError, Disk, Options, Pooler, Proxy, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn ask(url: &str, statements: &[&str]) -> Result<String, String> {
    let mut psql = Command::new("psql");
    psql.args(["-XAtqw", "-v", "ON_ERROR_STOP=1", "-d", url]);
    for statement in statements {
        psql.args(["-c", statement]);
    }
    let output = psql.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn a_promoted_standby_has_every_confirmed_commit() {
    let primary = Cluster::start().unwrap();
    primary.sql("CREATE TABLE marks (n int)").unwrap();
    let standby = primary.standby(true).unwrap();
    assert_eq!(standby.sql("SELECT pg_is_in_recovery()").unwrap(), "t");
    assert!(standby.sql("INSERT INTO marks VALUES (0)").is_err());
    for n in 1..=20 {
        primary
            .sql(&format!("INSERT INTO marks VALUES ({n})"))
            .unwrap();
    }
    primary.kill9().unwrap();
    standby.promote().unwrap();
    assert_eq!(standby.sql("SELECT count(*) FROM marks").unwrap(), "20");
    // It waits for no standby of its own.
    standby.sql("INSERT INTO marks VALUES (21)").unwrap();
}

#[test]
fn a_synchronous_commit_waits_for_the_standby() {
    // The guard of the test above: without its standby such a server confirms nothing.
    let primary = Cluster::start().unwrap();
    primary.sql("CREATE TABLE marks (n int)").unwrap();
    let standby = primary.standby(true).unwrap();
    standby.stop(Stop::Immediate).unwrap();
    std::thread::scope(|scope| {
        let insert = scope.spawn(|| primary.sql("INSERT INTO marks VALUES (1)"));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let begun = Instant::now();
        while primary.sql(waits).unwrap() == "0" {
            assert!(begun.elapsed() < LONG, "it does not wait");
        }
        assert_eq!(primary.sql("SELECT count(*) FROM marks").unwrap(), "0");
        standby.restart().unwrap();
        insert.join().unwrap().unwrap();
    });
    assert_eq!(primary.sql("SELECT count(*) FROM marks").unwrap(), "1");
}

#[test]
fn a_pooler_hands_one_session_to_several_clients() {
    let cluster = Cluster::start().unwrap();
    let pooler = Pooler::before(&cluster).unwrap();
    let url = pooler.url("postgres");
    assert_eq!(ask(&url, &["SELECT 1"]).unwrap(), "1");
    // What one client leaves in its session, the next one finds.
    ask(&url, &["PREPARE left_behind AS SELECT 7"]).unwrap();
    assert_eq!(ask(&url, &["EXECUTE left_behind"]).unwrap(), "7");
    let direct = cluster.url("postgres");
    ask(&direct, &["PREPARE left_behind AS SELECT 7"]).unwrap();
    assert!(ask(&direct, &["EXECUTE left_behind"]).is_err());
}

#[test]
fn a_full_disk_refuses_and_takes_writes_again() {
    let disk = Options::default().disk(Disk::Data(96 << 20));
    let cluster = Cluster::start_with(disk).unwrap();
    cluster.sql("CREATE TABLE marks (t text)").unwrap();
    let fill = "INSERT INTO marks SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    cluster.sql(fill).unwrap();
    cluster.disk().unwrap().fill().unwrap();
    let error = loop {
        if let Err(error) = cluster.sql(fill) {
            break error.to_string();
        }
    };
    assert!(error.contains("No space left on device"), "{error}");
    cluster.disk().unwrap().free().unwrap();
    if cluster.pid().is_none() {
        cluster.restart().unwrap();
    }
    cluster.sql(fill).unwrap();
    assert!(matches!(
        Cluster::start().unwrap().disk(),
        Err(ClusterError::NoDisk)
    ));
}

#[test]
fn a_full_log_of_writes_ends_the_server_and_loses_nothing() {
    let options = Options::default()
        .disk(Disk::Log(16 << 20))
        .setting("wal_recycle", "off")
        .setting("min_wal_size", "2MB")
        .setting("max_wal_size", "4MB");
    let cluster = Cluster::start_with(options).unwrap();
    cluster.sql("CREATE TABLE marks (n int)").unwrap();
    cluster.disk().unwrap().fill().unwrap();
    let mut kept = 0;
    while cluster.sql("INSERT INTO marks VALUES (1)").is_ok() {
        kept += 1;
        // To the next segment, for which there is no room.
        let _ = cluster.sql("SELECT pg_switch_wal()");
    }
    cluster.disk().unwrap().free().unwrap();
    // One that has not ended by itself yet may be in the middle of trying to start again.
    cluster.kill9().unwrap();
    cluster.restart().unwrap();
    let found: i32 = cluster
        .sql("SELECT count(*) FROM marks")
        .unwrap()
        .parse()
        .unwrap();
    assert!(found >= kept, "{found} of {kept}");
}

#[test]
fn it_is_known_when_the_server_lets_somebody_in() {
    let cluster = Cluster::start().unwrap();
    assert!(cluster.accepts());
    cluster.kill9().unwrap();
    assert!(!cluster.accepts());
    cluster.restart().unwrap();
    assert!(cluster.accepts());
}

/// A server that says back what it hears, and how many connections it has had.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

fn port(proxy: &Proxy) -> u16 {
    let url = proxy.url("postgres://u@127.0.0.1:1/d");
    let (_, rest) = url.split_once("127.0.0.1:").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

async fn connect(proxy: &Proxy) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", port(proxy))).await
}

/// Sends four bytes; what comes back within the time, if anything.
async fn say(stream: &mut TcpStream, patience: Duration) -> Option<std::io::Result<usize>> {
    stream.write_all(b"ping").await.ok()?;
    let mut back = [0; 4];
    tokio::time::timeout(patience, stream.read(&mut back))
        .await
        .ok()
}

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_proxy_cuts_refuses_and_opens_again() {
    let proxy = Proxy::before(echo().await).await.unwrap();
    assert_eq!(
        proxy.url("postgres://u:p@h:5/d?x=y"),
        format!(
            "postgres://u:p@127.0.0.1:{}/d?sslmode=disable",
            port(&proxy)
        )
    );
    let mut stream = connect(&proxy).await.unwrap();
    assert!(matches!(say(&mut stream, LONG).await, Some(Ok(4))));
    proxy.cut();
    assert!(!matches!(say(&mut stream, LONG).await, Some(Ok(1..))));
    let mut again = connect(&proxy).await.unwrap();
    assert!(matches!(say(&mut again, LONG).await, Some(Ok(4))));
    proxy.refuse();
    assert!(!matches!(say(&mut again, LONG).await, Some(Ok(1..))));
    let begun = Instant::now();
    while connect(&proxy).await.is_ok() {
        assert!(begun.elapsed() < LONG, "still accepts");
    }
    proxy.open();
    let mut third = loop {
        if let Ok(stream) = connect(&proxy).await {
            break stream;
        }
        assert!(begun.elapsed() < LONG, "still refuses");
    };
    assert!(matches!(say(&mut third, LONG).await, Some(Ok(4))));
}

#[tokio::test]
async fn a_stall_passes_and_a_stranding_does_not() {
    let proxy = Proxy::before(echo().await).await.unwrap();
    let mut old = connect(&proxy).await.unwrap();
    assert!(matches!(say(&mut old, LONG).await, Some(Ok(4))));
    proxy.stall();
    assert!(say(&mut old, SHORT).await.is_none());
    let mut new = connect(&proxy).await.unwrap();
    assert!(say(&mut new, SHORT).await.is_none());
    proxy.open();
    // What was sent meanwhile arrives.
    let mut back = [0; 4];
    for stream in [&mut old, &mut new] {
        let read = tokio::time::timeout(LONG, stream.read_exact(&mut back)).await;
        assert!(read.unwrap().is_ok());
    }
    proxy.strand();
    assert!(say(&mut old, SHORT).await.is_none());
    let mut next = connect(&proxy).await.unwrap();
    assert!(matches!(say(&mut next, LONG).await, Some(Ok(4))));
    proxy.open();
    assert!(say(&mut old, SHORT).await.is_none());
}

#[tokio::test]
async fn a_commit_is_cut_before_or_after_the_server_has_done_it() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    cluster.sql("CREATE TABLE marks (n int)").unwrap();
    let proxy = Proxy::before(cluster.address()).await.unwrap();
    let url = proxy.url(&cluster.url("postgres"));
    let insert = async |n: u32| {
        let url = url.clone();
        let mark = format!("INSERT INTO marks VALUES ({n})");
        let asked = move || ask(&url, &["BEGIN", &mark, "COMMIT"]);
        tokio::task::spawn_blocking(asked).await.unwrap()
    };
    insert(1).await.unwrap();
    assert_eq!((proxy.commits(), proxy.faults()), (1, 0));
    proxy.at_commits(2, AtCommit::CutBefore);
    insert(2).await.unwrap();
    assert!(insert(3).await.is_err());
    proxy.at_next_commit(AtCommit::CutAfter);
    assert!(insert(4).await.is_err());
    let late = Duration::from_millis(200);
    proxy.at_commits(1, AtCommit::Delay(late));
    let begun = Instant::now();
    insert(5).await.unwrap();
    assert!(begun.elapsed() >= late);
    proxy.at_commits(1, AtCommit::CutBefore);
    proxy.only_commits_of("somebody else");
    insert(6).await.unwrap();
    proxy.spare_commits();
    assert_eq!((proxy.commits(), proxy.faults()), (5, 3));
    proxy.ban("psql");
    assert!(insert(7).await.is_err());
    let found = cluster.sql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM marks");
    assert_eq!(found.unwrap(), "1 2 4 5 6");
}
