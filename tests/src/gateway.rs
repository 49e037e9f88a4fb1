//! A gateway in this process, over real HTTP, with a scripted provider behind it.

use std::{ops::Deref, sync::Arc, time::Duration};

use billing::Credits;
use gateway::{
    app::Shared,
    serve::{self, ServeError},
    settings::{Secret, Settings},
};
use mock_provider::MockProvider;
use store::{OpenOptions, Page, Store, StoreUrl};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    ADMIN_KEY, Books, Place, Remote, TOP_UP_URL, eventually, in_time, metric, provider_files,
    variables,
};

/// Long enough for streams to end by themselves after a stop; tests of the cut set their own.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// A running gateway. End a test with [`Gateway::finish`]: it proves the books.
pub struct Gateway {
    remote: Remote,
    /// The provider behind it.
    pub provider: Arc<MockProvider>,
    /// What the gateway's start printed.
    pub welcome: String,
    settings: Settings,
    place: Place,
    provider_url: String,
    app: Option<Shared>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Gateway {
    /// A gateway with the settings of all tests.
    pub async fn start(books: Books) -> Self {
        Self::start_with(books, |_| ()).await
    }

    /// A gateway with settings of its own.
    pub async fn start_with(books: Books, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_at(Place::new(books).await, change).await
    }

    /// A gateway on books that are there already.
    pub async fn start_at(place: Place, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(&place);
        change(&mut settings);
        let provider = MockProvider::start(settings.listen).await.unwrap();
        let url = provider.url();
        Self::launch(place, settings, Arc::new(provider), url).await
    }

    /// A gateway before a provider at this address, whoever is there.
    pub async fn start_before(place: Place, provider_url: String) -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        let settings = settings(&place);
        let unused = MockProvider::start(listen).await.unwrap();
        Self::launch(place, settings, Arc::new(unused), provider_url).await
    }

    /// Another gateway on the same books, before the same provider.
    pub async fn beside(&self) -> Self {
        Self::launch(
            self.place.clone(),
            self.settings.clone(),
            self.provider.clone(),
            self.provider_url.clone(),
        )
        .await
    }

    async fn launch(
        place: Place,
        settings: Settings,
        provider: Arc<MockProvider>,
        provider_url: String,
    ) -> Self {
        // The one before it may still be letting go of its file.
        let ready = eventually("the books are free", async || {
            let files = provider_files(&provider_url);
            let ready = serve::prepare_with(
                settings.clone(),
                files,
                Vec::new(),
                variables(&provider_url),
            );
            match ready.await {
                Ok(ready) => Some(ready),
                Err(ServeError::Store(
                    store::StoreError::InUse { .. } | store::StoreError::LocalJournalInUse { .. },
                )) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await;
        let addr = ready.listener.local_addr().unwrap();
        let app = ready.app.clone();
        let welcome = ready.welcome.text().to_owned();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve::serve(ready, async {
            let _ = stopped.await;
        }));
        Self {
            remote: Remote::new(addr),
            provider,
            welcome,
            settings,
            place,
            provider_url,
            app: Some(app),
            stop: Some(stop),
            serving: Some(serving),
        }
    }

    /// Its state, for what HTTP does not show.
    ///
    /// # Panics
    /// It was stopped.
    #[must_use]
    pub fn app(&self) -> &Shared {
        self.app.as_ref().unwrap()
    }

    /// Where its books are.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Stops it in order, as SIGTERM does.
    ///
    /// # Panics
    /// It did not write everything, or did not stop in time.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.begin_stop() {
            let ended = in_time("the gateway stops", serving).await.unwrap();
            ended.unwrap();
        }
    }

    /// Begins to stop it: what is returned ends when it has stopped.
    pub fn begin_stop(&mut self) -> Option<JoinHandle<Result<(), ServeError>>> {
        drop(self.stop.take());
        self.app = None;
        // Idle connections of this client are none that the gateway should wait for.
        self.remote = Remote::new(self.remote.addr());
        self.serving.take()
    }

    /// Stops it and starts another on the same books, at another address.
    pub async fn restart(mut self) -> Self {
        self.stop().await;
        Self::launch(
            self.place.clone(),
            self.settings.clone(),
            self.provider.clone(),
            self.provider_url.clone(),
        )
        .await
    }

    /// Ends a test: no hold is left, the books balance, the gateway stops in order, every lease
    /// went back, and the books still balance.
    pub async fn finish(mut self) {
        self.no_holds_left().await;
        self.audit().await;
        self.stop().await;
        closed_books_balance(&self.place).await;
    }

    /// As [`Gateway::finish`], while others go on with the same books.
    pub async fn leave(mut self) {
        self.no_holds_left().await;
        self.stop().await;
    }

    /// Waits until no request holds any credit.
    pub async fn no_holds_left(&self) {
        eventually("no hold is left", async || {
            let text = self.metrics().await;
            let none = |name| metric(&text, name) == Some(0.0);
            let all = none("tollway_holds_open")
                && none("tollway_held_credits")
                && none("tollway_journal_queue")
                && none("tollway_streams_open");
            // A permit is in use until its settlement is in a batch.
            (all && self.app().ledger.stats().in_flight == 0).then_some(())
        })
        .await;
    }
}

impl Deref for Gateway {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let ended = self.serving.is_none() || std::thread::panicking();
        assert!(ended, "a test ends with finish(), which proves the books");
    }
}

fn settings(place: &Place) -> Settings {
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        database_url: place.url().to_owned(),
        admin_key: Some(Secret::new(ADMIN_KEY.to_owned())),
        top_up_url: Some(TOP_UP_URL.to_owned()),
        shutdown_grace: SHUTDOWN_GRACE,
        ..Settings::default()
    }
}

async fn closed_books_balance(place: &Place) {
    let url = StoreUrl::parse(place.url()).unwrap();
    let store = Store::open_read_only(&url, OpenOptions::default())
        .await
        .unwrap();
    let audit = store.audit().await.unwrap();
    assert!(audit.balanced, "{audit:#?}");
    let accounts = store.accounts(Page::new(1000, None)).await.unwrap();
    for account in accounts.data {
        assert_eq!(account.balance.held, Credits::ZERO, "{account:?}");
        assert_eq!(
            account.balance.available, account.balance.total,
            "{account:?}"
        );
    }
}
