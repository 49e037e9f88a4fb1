//! `TCP_NODELAY` on connections to Postgres: sqlx 0.9 makes them without it and has no way to set it.
//!
//! Without it the last part of a large batch waits until the server has acknowledged what came before,
//! and a server that has nothing to answer yet does that after 40 ms: a batch took two and three times
//! as long. The socket is sqlx's own; pidfd_getfd(2) gives a second descriptor of it without unsafe
//! code. Where a sandbox forbids that, connections stay as they are: slower under load, and right.

/// Sets it on this process's connections to a server's port.
pub(crate) async fn set(port: u16) {
    let set = tokio::task::spawn_blocking(move || on_connections_to(port));
    if let Ok(Err(error)) = set.await {
        tracing::debug!(%error, "TCP_NODELAY cannot be set on connections to the database");
    }
}

#[cfg(target_os = "linux")]
fn on_connections_to(port: u16) -> std::io::Result<()> {
    use std::net::SocketAddr;

    use rustix::{
        net::{getpeername, sockopt::set_tcp_nodelay},
        process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
    };

    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let socket = std::fs::read_link(entry.path())
            .is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|_| socket) else {
            continue;
        };
        // Sockets come and go meanwhile; those that are gone need nothing.
        let Ok(twin) = pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let peer = getpeername(&twin)
            .ok()
            .and_then(|peer| SocketAddr::try_from(peer?).ok());
        if peer.is_some_and(|peer| peer.port() == port) {
            set_tcp_nodelay(&twin, true)?;
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn on_connections_to(_port: u16) -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_to_the_port_have_it_and_others_do_not() {
        let [server, other] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [near, far] = [&server, &other]
            .map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        on_connections_to(server.local_addr().unwrap().port()).unwrap();
        assert_eq!(
            (near.nodelay().unwrap(), far.nodelay().unwrap()),
            (true, false)
        );
    }
}
