//! A gateway in this process, over real HTTP, with a scripted provider behind it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use billing::Credits;
use gateway::{
    app::Shared,
    serve::{self, ServeError},
    settings::{Secret, Settings},
};
use mock_provider::MockProvider;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use store::{OpenOptions, Page, Store, StoreUrl};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    ADMIN_KEY, Balance, Books, Customer, Place, Plain, Streaming, TOP_UP_URL, eventually, in_time,
    provider_files, variable,
};

/// Long enough for streams to end by themselves after a stop; tests of the cut set their own.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// A running gateway. End a test with [`Gateway::finish`]: it proves the books.
pub struct Gateway {
    /// The provider behind it.
    pub provider: Arc<MockProvider>,
    /// The client that all calls go through.
    pub client: Client,
    /// What the gateway's start printed.
    pub welcome: String,
    settings: Settings,
    place: Place,
    provider_url: String,
    addr: SocketAddr,
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
            let ready = serve::prepare_with(settings.clone(), files, Vec::new(), variable);
            match ready.await {
                Ok(ready) => Some(ready),
                Err(ServeError::Store(store::StoreError::InUse { .. })) => None,
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
            provider,
            client: client(),
            welcome,
            settings,
            place,
            provider_url,
            addr,
            app: Some(app),
            stop: Some(stop),
            serving: Some(serving),
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
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

    /// A call to a path, with a key.
    #[must_use]
    pub fn call(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.addr);
        self.client.request(method, url).bearer_auth(key)
    }

    /// Reads a path as a client or the operator.
    pub async fn get(&self, key: &str, path: &str) -> Plain {
        Plain::read(self.call(Method::GET, path, key).send().await.unwrap()).await
    }

    /// Calls the admin API.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Plain {
        let path = format!("/admin/v1{path}");
        let mut request = self.call(method, &path, ADMIN_KEY);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        Plain::read(request.send().await.unwrap()).await
    }

    /// A new key with an account of its own and these credits, as decimal text.
    pub async fn customer(&self, credits: impl ToString) -> Customer {
        let call = match credits.to_string().as_str() {
            // Only a positive amount is an entry.
            "0" => json!({"name": "test"}),
            credits => json!({"name": "test", "credits": credits}),
        };
        self.customer_with(call).await
    }

    /// A new key out of this call to `POST /keys`.
    pub async fn customer_with(&self, call: Value) -> Customer {
        let made = self.admin(Method::POST, "/keys", Some(call)).await;
        Customer::of(&made.expect(201).json())
    }

    /// Adds credits to a customer's account.
    pub async fn top_up(&self, customer: &Customer, amount: Credits) {
        let path = format!("/accounts/{}/credits", customer.account_id);
        let body = json!({"amount": amount.to_string()});
        let _ = self
            .admin(Method::POST, &path, Some(body))
            .await
            .expect(201);
    }

    /// A chat, not yet sent.
    #[must_use]
    pub fn chat_request(&self, customer: &Customer, body: impl ToString) -> RequestBuilder {
        self.call(Method::POST, "/v1/chat/completions", &customer.secret)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// A chat, read to its end whatever it is.
    pub async fn chat(&self, customer: &Customer, body: impl ToString) -> Plain {
        let sent = self.chat_request(customer, body).send();
        Plain::read(in_time("the head of an answer", sent).await.unwrap()).await
    }

    /// A chat that streams.
    pub async fn stream(&self, customer: &Customer, body: impl ToString) -> Streaming {
        let sent = self.chat_request(customer, body).send();
        Streaming::new(in_time("the head of a stream", sent).await.unwrap())
    }

    /// A customer's balance.
    pub async fn balance(&self, customer: &Customer) -> Balance {
        let path = format!("/accounts/{}", customer.account_id);
        let account = self.admin(Method::GET, &path, None).await.expect(200);
        Balance::of(&account.json()["balance"])
    }

    /// The balance once no request holds any of it.
    pub async fn settled_balance(&self, customer: &Customer) -> Credits {
        eventually("nothing is held", async || {
            let balance = self.balance(customer).await;
            (balance.held == Credits::ZERO).then_some(balance.available)
        })
        .await
    }

    /// Everything that was charged to a customer, newest first, once `count` requests are booked.
    pub async fn charges(&self, customer: &Customer, count: usize) -> Vec<Value> {
        let path = format!("/charges?limit=1000&account_id={}", customer.account_id);
        let rows = eventually("the charges are booked", async || {
            let list = self
                .admin(Method::GET, &path, None)
                .await
                .expect(200)
                .json();
            let rows = list["data"].as_array().unwrap().clone();
            (rows.len() >= count).then_some(rows)
        })
        .await;
        assert_eq!(rows.len(), count, "{rows:?}");
        rows
    }

    /// The only charge of a customer.
    pub async fn charge(&self, customer: &Customer) -> Value {
        self.charges(customer, 1).await.remove(0)
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        let text = self.get("", "/metrics").await.expect(200).body;
        String::from_utf8(text.to_vec()).unwrap()
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
        self.client = client();
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

    /// Proves that the books balance.
    pub async fn audit(&self) {
        let audit = self
            .admin(Method::GET, "/audit", None)
            .await
            .expect(200)
            .json();
        assert_eq!(audit["balanced"], true, "{audit:#}");
        assert_eq!(audit["imbalance"], "0", "{audit:#}");
        for check in audit["checks"].as_array().unwrap() {
            assert_eq!(check["ok"], true, "{check:#}");
        }
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

impl Drop for Gateway {
    fn drop(&mut self) {
        let ended = self.serving.is_none() || std::thread::panicking();
        assert!(ended, "a test ends with finish(), which proves the books");
    }
}

/// The value of a metric without labels, or with exactly these.
#[must_use]
pub fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.parse().ok()
    })
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

fn client() -> Client {
    // Fails when another test of this process was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirects = reqwest::redirect::Policy::none();
    Client::builder().redirect(redirects).build().unwrap()
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
