//! `tollway serve`: from settings to a listening gateway, and to its orderly end.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use billing::{Credits, PriceId};
use mock_provider::MockProvider;
use store::{
    AdminKey, ApiKeySecret, Ledger, LedgerOptions, NewKey, OpenOptions, Store, StoreError, StoreUrl,
};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    admin::{audit, drift},
    app::{self, App, Shared},
    body::Room,
    catalogue::Catalogue,
    counting::{self, Counting},
    kept::KeptBytes,
    metrics::Metrics,
    once::Once,
    open_files,
    places::Places,
    prices::Prices,
    provider_file::{ProviderFile, demo_file},
    server::{self, Bounds},
    settings::{Finding, Settings},
    unattended,
    upstream::{self, ClientError, Upstream},
    waiting,
    welcome::Welcome,
};

/// The demo key's credits.
const DEMO_CREDITS: Credits = Credits::from_nanos(5_000_000_000);
/// A client that takes nothing for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// What streams that were cut get to say so.
const CUT_GRACE: Duration = Duration::from_secs(3);
/// What the journal gets to write everything.
const FLUSH_GRACE: Duration = Duration::from_secs(20);

/// Why the gateway did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Configuration(Vec<Finding>),
    /// The books cannot be opened.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// An address cannot be listened on.
    #[error("{0}")]
    Listen(#[from] io::Error),
    /// The client for providers cannot be made.
    #[error("the client for providers: {0}")]
    Client(#[from] ClientError),
    /// The metrics cannot be made.
    #[error("the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A price cannot be written down.
    #[error("a price: {0}")]
    Price(#[from] billing::PriceError),
    /// Not everything was written when the time was up.
    #[error(
        "the journal could not be written in time; what is missing is charged by its checkpoints when another gateway starts"
    )]
    NotFlushed,
}

impl ServeError {
    /// True where the same start may succeed later without any change: the database is away.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unavailable(),
            Self::Configuration(_)
            | Self::Listen(_)
            | Self::Client(_)
            | Self::Metrics(_)
            | Self::Price(_)
            | Self::NotFlushed => false,
        }
    }
}

/// A gateway that is ready to be served.
pub struct Ready {
    /// Its state.
    pub app: Shared,
    /// Where clients connect.
    pub listener: TcpListener,
    /// Where metrics are scraped, if not there.
    pub metrics_listener: Option<TcpListener>,
    /// What to print once.
    pub welcome: Welcome,
    cut: watch::Sender<bool>,
    /// Alive as long as the gateway.
    _demo: Option<MockProvider>,
}

/// Starts everything but the serving. `findings` are what loading the configuration found wrong.
///
/// # Errors
/// [`ServeError`].
pub async fn prepare(
    settings: Settings,
    files: Vec<(String, ProviderFile)>,
    findings: Vec<Finding>,
) -> Result<Ready, ServeError> {
    let variable = |name: &str| std::env::var(name).ok();
    prepare_with(settings, files, findings, variable).await
}

/// As [`prepare`], with the variables that provider files name (keys, addresses) from `variable`
/// instead of the environment.
///
/// # Errors
/// [`ServeError`].
pub async fn prepare_with(
    settings: Settings,
    mut files: Vec<(String, ProviderFile)>,
    mut findings: Vec<Finding>,
    variable: impl Fn(&str) -> Option<String> + Send + Sync,
) -> Result<Ready, ServeError> {
    if !findings.is_empty() {
        return Err(ServeError::Configuration(findings));
    }
    upstream::install_tls();
    let listener = server::bind(settings.listen)?;
    let metrics_listener = match settings.metrics_listen {
        Some(address) => Some(server::bind(address)?),
        None => None,
    };
    let demo = demo(&settings, &mut files, &variable).await?;
    let catalogue = Catalogue::new(files, &settings.routes, variable, &mut findings);
    if !findings.is_empty() {
        return Err(ServeError::Configuration(findings));
    }
    let open = async || Box::pin(open_books(&settings, &catalogue)).await;
    let (books, listener) = if settings.local_journal.is_some() {
        let bounds = Bounds {
            grace: CUT_GRACE,
            ..bounds(&settings)
        };
        Box::pin(waiting::until_open(listener, bounds, open)).await?
    } else {
        (open().await?, listener)
    };
    let given = settings.admin_key.as_ref().map(|key| key.expose());
    let (admin_key, admin_secret) = books.store.ensure_admin_key(given).await?;
    let demo_key = books.store.create_demo_key(demo_key()).await?;
    let welcome = Welcome::new(
        listener.local_addr()?,
        &store_name(&settings)?,
        &catalogue,
        demo.is_some(),
        admin_secret.as_ref().map(ApiKeySecret::expose),
        demo_key.as_ref().map(|key| key.secret.expose()),
    );
    let (cut, cut_streams) = watch::channel(false);
    let app = share(settings, catalogue, books, admin_key, cut_streams)?;
    if let Err(error) = counting::load(&app).await {
        tracing::warn!(%error, "what was learned about tokenizers cannot be read now");
    }
    Ok(Ready {
        app,
        listener,
        metrics_listener,
        welcome,
        cut,
        _demo: demo,
    })
}

fn share(
    settings: Settings,
    catalogue: Catalogue,
    books: Books,
    admin_key: AdminKey,
    cut_streams: watch::Receiver<bool>,
) -> Result<Shared, ServeError> {
    let prices = Prices::new(settings.markups.clone());
    Ok(Arc::new(App {
        upstream: Upstream::new(&settings)?,
        body_room: Room::new(settings.bodies_bytes_max),
        kept_bytes: KeptBytes::default(),
        metrics: Metrics::new()?,
        prices,
        settings,
        catalogue,
        store: books.store,
        ledger: books.ledger,
        admin_key,
        once: Once::default(),
        places: Places::default(),
        counting: Counting::default(),
        cut_streams,
    }))
}

/// The books, open.
struct Books {
    store: Store,
    ledger: Ledger,
}

async fn open_books(settings: &Settings, catalogue: &Catalogue) -> Result<Books, ServeError> {
    let options = OpenOptions {
        connections: settings.database_connections,
        pooler: settings.database_pooler,
        leave_dead: settings.local_journal.is_some(),
        ..OpenOptions::default()
    };
    let store = Store::open(&StoreUrl::parse(&settings.database_url)?, options).await?;
    record_prices(&store, catalogue).await?;
    let options = LedgerOptions {
        in_flight_max: settings.requests_max,
        local_journal: settings.local_journal.clone(),
        ..LedgerOptions::default()
    };
    let ledger = Ledger::start(store.clone(), options).await?;
    Ok(Books { store, ledger })
}

fn bounds(settings: &Settings) -> Bounds {
    Bounds {
        connections_max: open_files::connections(settings.connections_max),
        header_timeout: settings.header_timeout,
        write_timeout: WRITE_TIMEOUT,
        grace: settings.shutdown_grace.saturating_add(CUT_GRACE),
    }
}

/// Starts the demo provider where it was asked for, or where there would be nothing to serve.
async fn demo(
    settings: &Settings,
    files: &mut Vec<(String, ProviderFile)>,
    variable: &(impl Fn(&str) -> Option<String> + Sync),
) -> Result<Option<MockProvider>, ServeError> {
    let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let any = files
        .iter()
        .any(|(_, file)| !file.models.is_empty() && file.missing(set).is_empty());
    if any && !settings.demo {
        return Ok(None);
    }
    let provider = MockProvider::start(([127, 0, 0, 1], 0).into()).await?;
    let place = "the demo provider";
    let file = ProviderFile::parse(place, &demo_file(&provider.url()))
        .map_err(ServeError::Configuration)?;
    files.push((place.into(), file));
    Ok(Some(provider))
}

fn demo_key() -> NewKey {
    NewKey {
        name: "demo".into(),
        credits: Some(DEMO_CREDITS),
        ..NewKey::default()
    }
}

fn store_name(settings: &Settings) -> Result<String, StoreError> {
    Ok(StoreUrl::parse(&settings.database_url)?.to_string())
}

/// Keeps every price version, so that every charge can be computed again.
async fn record_prices(store: &Store, catalogue: &Catalogue) -> Result<(), ServeError> {
    let mut kept = HashSet::new();
    let mut rows = Vec::new();
    for model in catalogue.priced() {
        for (price, id) in model.all_prices() {
            if kept.insert(id) {
                rows.push((id, model, price.to_json()?));
            }
        }
    }
    let rows: Vec<(PriceId, &str, &str, &str)> = rows
        .iter()
        .map(|(id, model, text)| (*id, &*model.provider.name, &*model.id, text.as_str()))
        .collect();
    Ok(store.record_prices(&rows).await?)
}

/// Serves until SIGTERM or SIGINT: then takes no more, lets streams end within the grace, writes
/// every settlement.
///
/// # Errors
/// [`ServeError`].
pub async fn run(
    settings: Settings,
    files: Vec<(String, ProviderFile)>,
    findings: Vec<Finding>,
) -> Result<(), ServeError> {
    let mut stop = Box::pin(stop_signal());
    let ready = tokio::select! {
        ready = Box::pin(prepare(settings, files, findings)) => ready?,
        () = &mut stop => return Ok(()),
    };
    ready.welcome.print();
    serve(ready, stop).await
}

/// Serves until `stop`.
///
/// # Errors
/// [`ServeError::NotFlushed`].
pub async fn serve(ready: Ready, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
    let settings = &ready.app.settings;
    let bounds = bounds(settings);
    let (stopping, stopped) = watch::channel(false);
    let told = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let clients = server::serve(
        ready.listener,
        app::router(ready.app.clone()),
        bounds,
        told(stopped.clone()),
    );
    let metrics = async {
        if let Some(listener) = ready.metrics_listener {
            let router = app::metrics_router(ready.app.clone());
            server::serve(listener, router, bounds, told(stopped.clone())).await;
        }
    };
    let signal = async {
        stop.await;
        tracing::info!("stopping: no new requests, running streams may end");
        let _ = stopping.send(true);
        tokio::time::sleep(settings.shutdown_grace).await;
        let _ = ready.cut.send(true);
    };
    let serving = async { tokio::join!(clients, metrics) };
    let mut signal = std::pin::pin!(signal);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = &mut serving => {}
        () = &mut signal => { serving.await; }
        () = audit::prove_regularly(&ready.app) => {}
        () = drift::show_regularly(&ready.app) => {}
        () = counting::exchange_regularly(&ready.app) => {}
        () = unattended::look_regularly(&ready.app) => {}
    }
    let flushed = ready.app.ledger.shutdown(FLUSH_GRACE).await;
    // Of no weight beside the settlements: what is not learned now is learned again.
    let learned = tokio::time::timeout(CUT_GRACE, counting::exchange(&ready.app, true)).await;
    if let Ok(Err(error)) = learned {
        tracing::warn!(%error, "what was learned about tokenizers is not written down");
    }
    // What is not written down by then falls with the replica: a repeated request is told so.
    ready.app.once.finish(CUT_GRACE).await;
    if flushed {
        tracing::info!("stopped: every settlement is written");
        Ok(())
    } else {
        Err(ServeError::NotFlushed)
    }
}

/// SIGTERM or SIGINT. They are listened for from the call on, not from the first poll: one that
/// comes right after the start must not kill.
#[cfg(unix)]
fn stop_signal() -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::SignalKind;
    let terminate = heard(SignalKind::terminate());
    let interrupt = heard(SignalKind::interrupt());
    async move {
        tokio::select! {
            () = terminate => {}
            () = interrupt => {}
        }
    }
}

#[cfg(unix)]
fn heard(kind: tokio::signal::unix::SignalKind) -> impl Future<Output = ()> + Send {
    let signal = tokio::signal::unix::signal(kind)
        .inspect_err(|error| tracing::warn!(%error, ?kind, "cannot hear this signal"));
    async move {
        match signal {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
async fn stop_signal() {
    let _ = tokio::signal::ctrl_c().await;
}
