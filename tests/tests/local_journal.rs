//! kill -9 with a local journal: whatever the client received is charged, to the token, and nothing else.

use std::path::Path;

use billing::Credits;
use gateway::{
    serve,
    settings::{Secret, Settings},
};
use http::Method;
use mock_provider::{MockProvider, Script};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tests::{
    ADMIN_KEY, Books, Customer, PROMPT_TOKENS, Place, Program, Remote, chat, credits, eventually,
    metric, provider_files, streamed, tokens_cost, usage, variable,
};
use throwaway_postgres::{Proxy, SmallDisk};

async fn mock() -> MockProvider {
    MockProvider::start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap()
}

/// The program with its local journal in a folder.
async fn program(place: &Place, provider: &MockProvider, journal: &Path) -> Program {
    let (database, provider) = (place.url().to_owned(), provider.url());
    let journal = journal.display().to_string();
    tokio::task::spawn_blocking(move || {
        let variables = [
            ("TOLLWAY_ADMIN_KEY", ADMIN_KEY),
            ("TOLLWAY_LOCAL_JOURNAL", journal.as_str()),
        ];
        Program::start_with(&database, &provider, &variables)
    })
    .await
    .unwrap()
}

async fn kill(program: Program) {
    tokio::task::spawn_blocking(|| program.kill())
        .await
        .unwrap();
}

async fn end(program: Program) {
    program.audit().await;
    let (status, _) = tokio::task::spawn_blocking(|| program.terminate())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
}

/// Everything charged to a customer, and that nothing more is coming: asked once.
async fn charges_now(program: &Program, customer: &Customer) -> Vec<Value> {
    let path = format!("/charges?account_id={}", customer.account_id);
    let list = program.admin(Method::GET, &path, None).await.expect(200);
    list.json()["data"].as_array().unwrap().clone()
}

async fn no_house_loss(program: &Program) {
    let audit = program.admin(Method::GET, "/audit", None).await.expect(200);
    assert_eq!(
        audit.json()["house_losses"],
        json!({}),
        "{:#}",
        audit.json()
    );
}

/// A lock on the books that keeps charges from being written.
enum Held {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Held {
    async fn take(place: &Place) -> Self {
        if place.url().starts_with("postgres") {
            let mut connection = PgConnection::connect(place.url()).await.unwrap();
            let lock = "BEGIN; LOCK TABLE charges IN EXCLUSIVE MODE";
            sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
            Self::Postgres(connection)
        } else {
            let mut connection = SqliteConnection::connect(place.url()).await.unwrap();
            let lock = "BEGIN IMMEDIATE";
            sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
            Self::Sqlite(connection)
        }
    }

    async fn let_go(self) {
        match self {
            Self::Postgres(connection) => connection.close().await.unwrap(),
            Self::Sqlite(connection) => connection.close().await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_gateway_delivered_is_charged_to_the_token() {
    for books in Books::ALL {
        let (place, provider) = (Place::new(books).await, mock().await);
        let folder = TempDir::new().unwrap();
        let first = program(&place, &provider, folder.path()).await;
        // Three that have delivered something, one that has not, one that nothing came of yet.
        provider.script(
            "m",
            Script::new()
                .role()
                .tokens(7)
                .gate("a")
                .tokens(30)
                .gate("b"),
        );
        let mut streams = Vec::new();
        for _ in 0..3 {
            let customer = first.customer("1").await;
            let mut stream = first.stream(&customer, streamed("m")).await;
            stream.read_tokens(7).await;
            streams.push((customer, stream));
        }
        // What passes the gate later is delivered too.
        provider.open("a");
        for (_, stream) in &mut streams {
            stream.read_tokens(37).await;
        }
        provider.script_once("m", Script::new().role().gate("c"));
        let silent = first.customer("1").await;
        let role_only = first.stream(&silent, streamed("m")).await;
        provider.script_once("m", Script::new().gate("c"));
        let waiting = first.customer("1").await;
        let request = first.chat_request(&waiting, chat("m", json!({})));
        let request = tokio::spawn(request.send());
        eventually("it is upstream", async || {
            (provider.stats().requests == 5).then_some(())
        })
        .await;
        kill(first).await;
        drop((role_only, request));

        let second = program(&place, &provider, folder.path()).await;
        for (customer, _) in &streams {
            // At once: nobody waits for a reaper.
            let rows = charges_now(&second, customer).await;
            assert_eq!(rows.len(), 1, "{rows:#?}");
            assert_eq!(rows[0]["charged"], json!(tokens_cost(PROMPT_TOKENS + 37)));
            assert_eq!(rows[0]["house_loss"], json!(Credits::ZERO));
            assert_eq!(rows[0]["end"], "gateway_lost");
            let left = credits("1")
                .checked_sub(tokens_cost(PROMPT_TOKENS + 37))
                .unwrap();
            let balance = second.balance(customer).await;
            assert_eq!((balance.available, balance.held), (left, Credits::ZERO));
        }
        for customer in [&silent, &waiting] {
            assert_eq!(charges_now(&second, customer).await, [] as [Value; 0]);
            assert_eq!(second.balance(customer).await.available, credits("1"));
        }
        no_house_loss(&second).await;
        end(second).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_and_not_booked_is_booked_by_the_next_start() {
    for books in Books::ALL {
        let (place, provider) = (Place::new(books).await, mock().await);
        let folder = TempDir::new().unwrap();
        let first = program(&place, &provider, folder.path()).await;
        let said = usage(PROMPT_TOKENS, 3);
        provider.script(
            "m",
            Script::new().tokens(3).finish("stop").usage_json(&said),
        );
        let customer = first.customer("1").await;
        // Twice: the rest of the first one's lease goes back with its settlement.
        for booked in 1..=2 {
            let _ = first
                .chat(&customer, chat("m", json!({})))
                .await
                .expect(200);
            let _ = first.charges(&customer, booked).await;
        }
        // The books hang while answers go on, out of the lease in hand.
        let held = Held::take(&place).await;
        let _ = first
            .chat(&customer, chat("m", json!({})))
            .await
            .expect(200);
        let events = first.stream(&customer, streamed("m")).await.rest().await;
        assert!(events.error().is_none());
        kill(first).await;
        held.let_go().await;

        let second = program(&place, &provider, folder.path()).await;
        let rows = charges_now(&second, &customer).await;
        assert_eq!(rows.len(), 4, "{rows:#?}");
        for row in &rows {
            assert_eq!(row["charged"], json!(tokens_cost(PROMPT_TOKENS + 3)));
            assert_eq!(row["end"], "completed");
        }
        no_house_loss(&second).await;
        // Killed again at once, and started again: nothing is booked twice.
        kill(second).await;
        let third = program(&place, &provider, folder.path()).await;
        assert_eq!(charges_now(&third, &customer).await.len(), 4);
        end(third).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_requests_until_there_is_room() {
    let (place, provider) = (Place::new(Books::Postgres).await, mock().await);
    let disk = tokio::task::spawn_blocking(|| SmallDisk::new(4 << 20));
    let disk = disk.await.unwrap().unwrap();
    let gateway = program(&place, &provider, &disk.path().join("journal")).await;
    let customer = gateway.customer("1").await;
    provider.script_once(
        "m",
        Script::new()
            .role()
            .tokens(2)
            .gate("go")
            .tokens(5)
            .finish("stop"),
    );
    let mut running = gateway.stream(&customer, streamed("m")).await;
    running.read_tokens(2).await;
    provider.script("m", Script::new().tokens(1).finish("stop"));
    tokio::task::block_in_place(|| disk.fill()).unwrap();
    let mut served = 1;
    let refused = loop {
        let answer = gateway.chat(&customer, chat("m", json!({}))).await;
        if answer.status != 200 {
            break answer.expect(503);
        }
        served += 1;
        assert!(served < 5_000, "nothing was ever refused");
    };
    assert_eq!(refused.json()["error"]["code"], "unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    let failing = async || metric(&gateway.metrics().await, "tollway_local_journal_failing");
    assert_eq!(failing().await, Some(1.0));
    let ready = gateway.get("", "/readyz").await.expect(503).json();
    assert_eq!(ready["local_journal"], false, "{ready}");
    // What runs goes on to its end, and is booked.
    provider.open("go");
    let events = running.rest().await;
    assert!(events.error().is_none());
    let rows = gateway.charges(&customer, served).await;
    assert!(
        rows.iter()
            .all(|row| row["house_loss"] == json!(Credits::ZERO))
    );
    tokio::task::block_in_place(|| disk.free()).unwrap();
    eventually("it is written again", async || {
        (failing().await == Some(0.0)).then_some(())
    })
    .await;
    let _ = gateway
        .chat(&customer, chat("m", json!({})))
        .await
        .expect(200);
    let _ = gateway.get("", "/readyz").await.expect(200);
    end(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_before_the_journal_is_booked() {
    let (place, provider) = (Place::new(Books::Postgres).await, mock().await);
    let server = place
        .url()
        .split_once('@')
        .map_or(place.url(), |(_, rest)| rest);
    let server = server
        .trim_start_matches("postgres://")
        .split('/')
        .next()
        .unwrap();
    let proxy = Proxy::before(server.parse().unwrap()).await.unwrap();
    let folder = TempDir::new().unwrap();
    proxy.refuse();
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let settings = Settings {
        listen: address,
        database_url: proxy.url(place.url()),
        admin_key: Some(Secret::new(ADMIN_KEY.to_owned())),
        local_journal: Some(folder.path().to_owned()),
        ..Settings::default()
    };
    let remote = Remote::new(address);
    let ready = async || {
        let url = format!("http://{address}/readyz");
        let answer = remote.client.get(url).send().await.ok()?;
        Some(answer.status().as_u16())
    };
    let files = provider_files(&provider.url());
    let starting = serve::prepare_with(settings, files, Vec::new(), variable);
    let asking = async {
        eventually("it says that it is not ready", async || {
            (ready().await == Some(503)).then_some(())
        })
        .await;
        let _ = remote.get("", "/healthz").await.expect(200);
        let told = remote.get("", "/readyz").await.expect(503).json();
        assert!(
            told["reason"].as_str().unwrap().contains("not booked yet"),
            "{told}"
        );
        let refused = remote.get("", "/v1/models").await.expect(503);
        assert_eq!(refused.json()["error"]["code"], "unavailable");
        assert!(refused.headers.contains_key("retry-after"));
        proxy.open();
    };
    let (started, ()) = tokio::join!(starting, asking);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = serve::serve(started.unwrap(), async {
        let _ = stopped.await;
    });
    let asking = async {
        let again = Remote::new(address);
        let _ = again.get("", "/readyz").await.expect(200);
        drop(stop);
    };
    let (ended, ()) = tokio::join!(serving, asking);
    ended.unwrap();
}
