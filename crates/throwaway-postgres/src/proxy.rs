//! A proxy before a server: it cuts, refuses, stalls, and breaks off around a COMMIT.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::wire::ClientTalk;

const BUFFER_BYTES: usize = 64 << 10;
/// Between attempts to have the port again after refusing.
const BIND_PAUSE: Duration = Duration::from_millis(5);

/// A TCP proxy on a port of its own of 127.0.0.1, gone when dropped. What it does to connections
/// can be changed at any time; a new one lets everything pass.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

/// What happens to a COMMIT that is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCommit {
    /// It never reaches the server, and the connection breaks.
    CutBefore,
    /// The server has done it, and the connection breaks before the client hears so.
    CutAfter,
    /// The answer comes so much later, as from a slow disk.
    Delay(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Refuse,
    Stall,
}

#[derive(Clone, Debug)]
struct Weather {
    way: Way,
    /// Connections that began before this many cuts are broken.
    cuts: u64,
    /// Connections that began before this many strandings stall for ever.
    strandings: u64,
    /// Applications that are not let through.
    banned: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    every: u64,
    left: u64,
    once: bool,
    fault: AtCommit,
}

#[derive(Debug)]
struct State {
    server: Mutex<SocketAddr>,
    weather: watch::Sender<Weather>,
    plan: Mutex<Option<Plan>>,
    /// Only this application's commits count.
    whose: Mutex<Option<String>>,
    commits: AtomicU64,
    faults: AtomicU64,
}

impl Proxy {
    /// A proxy before the server at this address. Call it within a tokio runtime.
    ///
    /// # Errors
    /// No free port.
    pub async fn before(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            server: Mutex::new(server),
            weather: watch::Sender::new(Weather {
                way: Way::Open,
                cuts: 0,
                strandings: 0,
                banned: None,
            }),
            plan: Mutex::new(None),
            whose: Mutex::new(None),
            commits: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        });
        let listening = tokio::spawn(listen(listener, address, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            listening,
        })
    }

    /// A database's address, with this proxy in the server's place and without TLS.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let user = authority
            .rsplit_once('@')
            .map_or("postgres", |(user, _)| user);
        let path = path.split('?').next().unwrap_or_default();
        format!("{scheme}://{user}@{}/{path}?sslmode=disable", self.address)
    }

    /// Lets everything pass again. What was stalled goes on; what was stranded stays so.
    pub fn open(&self) {
        self.change(|weather| {
            weather.way = Way::Open;
            weather.banned = None;
        });
    }

    /// Breaks every connection there is; new ones pass.
    pub fn cut(&self) {
        self.change(|weather| weather.cuts += 1);
    }

    /// Breaks every connection there is and refuses new ones, as a server that is down.
    pub fn refuse(&self) {
        self.change(|weather| {
            weather.way = Way::Refuse;
            weather.cuts += 1;
        });
    }

    /// Accepts, and lets not one byte pass in either direction: a network that lost its way.
    pub fn stall(&self) {
        self.change(|weather| weather.way = Way::Stall);
    }

    /// The connections there are stall for ever; new ones pass. So it is after an address has
    /// moved to another machine.
    pub fn strand(&self) {
        self.change(|weather| weather.strandings += 1);
    }

    /// Breaks and keeps breaking connections of this application, until [`Proxy::open`].
    pub fn ban(&self, application: &str) {
        self.change(|weather| weather.banned = Some(application.to_owned()));
    }

    /// New connections go to this server.
    pub fn point_at(&self, server: SocketAddr) {
        *lock(&self.state.server) = server;
    }

    /// From now on every `every`th COMMIT fares so; with 1, each.
    pub fn at_commits(&self, every: u64, fault: AtCommit) {
        let every = every.max(1);
        *lock(&self.state.plan) = Some(Plan {
            every,
            left: every,
            once: false,
            fault,
        });
    }

    /// The next COMMIT fares so, and no other.
    pub fn at_next_commit(&self, fault: AtCommit) {
        *lock(&self.state.plan) = Some(Plan {
            every: 1,
            left: 1,
            once: true,
            fault,
        });
    }

    /// COMMITs pass again.
    pub fn spare_commits(&self) {
        *lock(&self.state.plan) = None;
    }

    /// Only this application's COMMITs are counted and chosen.
    pub fn only_commits_of(&self, application: &str) {
        *lock(&self.state.whose) = Some(application.to_owned());
    }

    /// How many COMMITs came by.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.state.commits.load(Ordering::SeqCst)
    }

    /// How many COMMITs were cut or delayed.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::SeqCst)
    }

    fn change(&self, how: impl FnOnce(&mut Weather)) {
        self.state.weather.send_modify(how);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl State {
    /// What happens to the COMMIT that just came by.
    fn fault_for(&self, application: &str) -> Option<AtCommit> {
        if lock(&self.whose)
            .as_deref()
            .is_some_and(|whose| whose != application)
        {
            return None;
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        let mut planned = lock(&self.plan);
        let plan = planned.as_mut()?;
        plan.left = plan.left.saturating_sub(1);
        if plan.left > 0 {
            return None;
        }
        plan.left = plan.every;
        let fault = plan.fault;
        if plan.once {
            *planned = None;
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }
}

async fn listen(listener: TcpListener, address: SocketAddr, state: Arc<State>) {
    let mut weather = state.weather.subscribe();
    let mut listener = Some(listener);
    // Dropped with this task, and all connections with it.
    let mut carried = JoinSet::new();
    loop {
        if weather.borrow_and_update().way == Way::Refuse {
            listener = None;
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => match TcpListener::bind(address).await {
                Ok(open) => open,
                Err(_) => {
                    tokio::time::sleep(BIND_PAUSE).await;
                    continue;
                }
            },
        };
        tokio::select! {
            accepted = open.accept() => {
                if let Ok((client, _)) = accepted {
                    carried.spawn(carry(client, Arc::clone(&state)));
                }
            }
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_) = carried.join_next() => {}
        }
        listener = Some(open);
    }
}

/// Carries one connection until either side, or the proxy, has enough.
async fn carry(client: TcpStream, state: Arc<State>) {
    let mut weather = state.weather.subscribe();
    let born = weather.borrow_and_update().clone();
    if born.way == Way::Stall && stalled(&mut weather, &born).await.is_none() {
        return;
    }
    let server = *lock(&state.server);
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    // Small messages go at once, in both directions.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut carried = Carried {
        client,
        server,
        talk: ClientTalk::default(),
        swallow: None,
    };
    let mut from_client = vec![0; BUFFER_BYTES];
    let mut from_server = vec![0; BUFFER_BYTES];
    loop {
        let now = weather.borrow_and_update().clone();
        let banned =
            carried.talk.has_started() && now.banned.as_deref() == Some(carried.talk.application());
        if now.cuts != born.cuts || banned {
            return;
        }
        if now.strandings != born.strandings {
            // Held open and never heard of again, even by cuts: there is no way left for those.
            std::future::pending::<()>().await;
        }
        if now.way == Way::Stall {
            if stalled(&mut weather, &born).await.is_none() {
                return;
            }
            continue;
        }
        let goes_on = tokio::select! {
            changed = weather.changed() => changed.is_ok(),
            read = carried.client.read(&mut from_client) => match read {
                Ok(count @ 1..) => carried.up(from_client.get(..count), &state).await,
                Ok(_) | Err(_) => false,
            },
            read = carried.server.read(&mut from_server) => match read {
                Ok(count @ 1..) => carried.down(from_server.get(..count)).await,
                Ok(_) | Err(_) => false,
            },
        };
        if !goes_on {
            return;
        }
    }
}

/// Waits out a stall. `None`: the connection was cut meanwhile.
async fn stalled(weather: &mut watch::Receiver<Weather>, born: &Weather) -> Option<()> {
    let moved = weather
        .wait_for(|now| now.way != Way::Stall || now.cuts != born.cuts)
        .await
        .ok()?;
    (moved.cuts == born.cuts).then_some(())
}

struct Carried {
    client: TcpStream,
    server: TcpStream,
    talk: ClientTalk,
    /// What happens to the server's next bytes, which answer a COMMIT.
    swallow: Option<AtCommit>,
}

impl Carried {
    /// From the client to the server; false when the connection is to be broken.
    async fn up(&mut self, bytes: Option<&[u8]>, state: &State) -> bool {
        let bytes = bytes.unwrap_or_default();
        if self.talk.push(bytes) {
            match state.fault_for(self.talk.application()) {
                Some(AtCommit::CutBefore) => return false,
                fault => self.swallow = fault,
            }
        }
        self.server.write_all(bytes).await.is_ok()
    }

    /// From the server to the client; false when the connection is to be broken.
    async fn down(&mut self, bytes: Option<&[u8]>) -> bool {
        match self.swallow.take() {
            // It is on the server's disk: it answers no sooner.
            Some(AtCommit::CutAfter) => return false,
            Some(AtCommit::Delay(time)) => tokio::time::sleep(time).await,
            Some(AtCommit::CutBefore) | None => {}
        }
        self.client
            .write_all(bytes.unwrap_or_default())
            .await
            .is_ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
