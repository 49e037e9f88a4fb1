//! Tokens over real HTTP: one for many callers, renewed in time, signed by the account's key.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::State, response::IntoResponse as _, routing::post};
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Barrier};

use super::*;

/// Made for these tests; it opens nothing.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCgHXNbrE8yRxEX\n\
    XODx3KOAoEOgT0TByA0xw/tibtL0NyC3WmPkYR5/SVZnXDLVa0kvu56s3mOS8kIM\n\
    F9fUP7UmjapQSGP/CmMe8QmR7Nf5wk4moIQPvjWw2TAEECfkcioUGogKvudeRwqF\n\
    mlGgmgnXie1P9haHsEuRKw/IDiwF53pimFEk4FIDwj6X12S15wZQH+hjeqmioEGw\n\
    wlxv5xzo+BAr1eZHkoeogK8105y80SzESJZwugx1yRcIlr7tVIHr6oEEiSBI/FCe\n\
    hg80rMQGFI/JWbdX4Cgf3AQzxu/jOP8k7TEXTuyoi/DqXsP/AlYCbYBvoLVjQgc2\n\
    Tp9Ka9NzAgMBAAECggEAHXt+x9URGiVq2L3x76ccdi1MdoLSGsp+33iCW+wjLPPP\n\
    suNSfHWDm5WB8vNPquuf5Mmr3JHwjNjN35MuWzdF4Gz6fODvhMFBYiupAvU1CZjF\n\
    MiihWJLCKSe8xyrAZbi91cjS3wOq77muDs7NFAD5KfaMO4qJOH/2Uis3MzOk2Ist\n\
    8s0RT0SiOhIHjCB1TDgr8Y+HuYMOFV4Y0tvvisAp2ak/5kdyGHf8NPq7qI8L1quU\n\
    dE2cuvy3Wsog+w/7Tt8S4pkNKqoRjsvxe5u50ZQeugAHyuETLOKonF5T18yRHgMU\n\
    05RC4qFK3whAH6CEz9P4daBWtNQVPEx8HfFOaEQz3QKBgQDO0qP0GWUBeAbqVALD\n\
    HZcf4P2ZbXUdzsW5jxKDMJY3CwZzeg+Q4sQ82csS7yCe6NaaIQ77XIXi2/odrsHv\n\
    sMD9eN91A2Sd0NAdWkHL9NFVEkisBxKSVsn5TTPp70BPAoD18Bzj8QgGLkup5ebK\n\
    EIKd7dHN2fh6XTKam+TIu8GozwKBgQDGL7IWq759J5B8J5LLkCft8xXvQ4VmptK1\n\
    2UR0bzZ+tPzwZ39HqNZhsrgD6+5D/9cp+xTXWIZLvqAxAHUdqvyuLHcrR6ngnAOB\n\
    gLjd9OuEi67qbsAl6BxVxW5XzovOcZ3vgIu6VGctaQiIyJFhoQI+I+3SEAjb5w/Z\n\
    rTB/9c4MHQKBgQCuiFE1Z8y1/Z0QWA7wquLiUxKPTDBeFCUFXzhHH1RUZOhvwJys\n\
    LsFdfImDk+paT7Dx5l3nPv/5HpumOtiMNgPWow8nhtJ83z8Q1h7aR+HzQXe0PE+u\n\
    0LCmwkDB9FW3lyxO3u7yaG/WD3FokYs+D8q6DXxUk9G9KTLQCCh8QP2/PwKBgHH7\n\
    ZHVdeUUJyDNfnzGsSwqzT943+zU6pN0phBFjFPhypzasj6trE0FFREgdHP/G2Lyw\n\
    RyBDLZnKnN8R4Emb2Y9iy3b81Fr1355PpgMhpYKpw4PZBnHGuOUrk3a0t/uXpLnm\n\
    OHaFrIGVcu8YS2TW8S9EArdZuX6fuaH71XUCreqRAoGBAKyG0espfZOuvEump9zJ\n\
    kYmlb/e/7C14ZqsHOttlnb+E+oEO6zwRO4tfq3gLWc1hgn6fuP1080vYdtGcEe51\n\
    s0TLo9fXOTmSTAgTXRD06m96Pz0jugpdR4PxbpEkacqAjW/H0XeAe/yK64LTIcoR\n\
    jkkLM9MOo3QEN4evPns9Zz/D\n\
    -----END PRIVATE KEY-----\n";

/// A token server: what it was sent, and what it answers.
#[derive(Default)]
struct Server {
    seen: std::sync::Mutex<Vec<Vec<(String, String)>>>,
    answer: std::sync::Mutex<(u16, String)>,
    given: AtomicU64,
}

impl Server {
    async fn start() -> (Arc<Self>, String) {
        crate::upstream::install_tls();
        let server = Arc::new(Self::default());
        server.answers(
            200,
            r#"{"access_token":"token-N","expires_in":3600,"token_type":"Bearer"}"#,
        );
        let app = Router::new()
            .route("/token", post(token))
            .with_state(server.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (server, url)
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn member(&self, name: &str) -> String {
        let seen = self.seen.lock().unwrap();
        let form = seen.last().unwrap();
        let found = form.iter().find(|(other, _)| other == name);
        found.unwrap().1.clone()
    }
}

async fn token(State(server): State<Arc<Server>>, body: String) -> axum::response::Response {
    let form = Url::parse(&format!("http://x/?{body}")).unwrap();
    let members = form.query_pairs().into_owned().collect();
    server.seen.lock().unwrap().push(members);
    let given = server.given.fetch_add(1, Ordering::Relaxed) + 1;
    let (status, body) = server.answer.lock().unwrap().clone();
    let status = http::StatusCode::from_u16(status).unwrap();
    (status, body.replace('N', &given.to_string())).into_response()
}

fn account(token_uri: &str) -> ServiceAccount {
    let file = json!({"type": "service_account", "project_id": "p", "private_key_id": "k-1", "private_key": KEY,
        "client_email": "robot@p.iam.gserviceaccount.com", "token_uri": token_uri});
    ServiceAccount::read(&file.to_string()).unwrap()
}

fn client() -> reqwest::Client {
    reqwest::Client::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_share_one_token() {
    let (server, url) = Server::start().await;
    let account = Arc::new(account(&url));
    let client = client();
    let barrier = Arc::new(Barrier::new(50));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (account, client, barrier) = (account.clone(), client.clone(), barrier.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                account.authorization(&client).await.unwrap()
            })
        })
        .collect();
    for caller in callers {
        let value = caller.await.unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer token-1");
        assert!(value.is_sensitive());
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn the_assertion_is_signed_by_the_account() {
    let (server, url) = Server::start().await;
    let account = account(&url);
    account.authorization(&client()).await.unwrap();
    assert_eq!(
        server.member("grant_type"),
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    let assertion = server.member("assertion");
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    let Grant::Key { key, .. } = &account.grant else {
        panic!("another grant")
    };
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref())
        .verify(signed.as_bytes(), &decoded(signature))
        .unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let head: Value = serde_json::from_slice(&decoded(head)).unwrap();
    assert_eq!(head, json!({"alg": "RS256", "typ": "JWT", "kid": "k-1"}));
    let claims: Value = serde_json::from_slice(&decoded(claims)).unwrap();
    assert_eq!(claims["iss"], "robot@p.iam.gserviceaccount.com");
    assert_eq!(claims["aud"], url);
    assert_eq!(claims["scope"], SCOPE);
    let (iat, exp) = (&claims["iat"], &claims["exp"]);
    assert_eq!(exp.as_u64().unwrap() - iat.as_u64().unwrap(), 3600);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_outlives_a_failure() {
    let (server, url) = Server::start().await;
    let (account, client) = (account(&url), client());
    let start = Instant::now();
    let after = |seconds| {
        let now = start + Duration::from_secs(seconds);
        let (account, client) = (&account, &client);
        async move {
            let value = account.authorization_at(client, now).await;
            value.map(|value| value.to_str().unwrap().to_owned())
        }
    };
    assert_eq!(after(0).await.unwrap(), "Bearer token-1");
    assert_eq!(after(3299).await.unwrap(), "Bearer token-1");
    assert_eq!(server.asked(), 1);
    assert_eq!(after(3300).await.unwrap(), "Bearer token-2");
    // The next renewal fails: the token is used to its end, and the server is not asked at every turn.
    server.answers(503, "{}");
    assert_eq!(after(3300 + 3400).await.unwrap(), "Bearer token-2");
    assert_eq!(after(3300 + 3400).await.unwrap(), "Bearer token-2");
    assert_eq!(server.asked(), 3);
    let error = after(3300 + 3600).await.unwrap_err();
    assert!(matches!(error, CredentialsError::Refused { status: 503 }));
    assert_eq!(server.asked(), 4);
    assert!(after(3300 + 3600).await.is_err());
    assert_eq!(server.asked(), 4);
    server.answers(200, r#"{"access_token":"token-N"}"#);
    assert_eq!(after(3300 + 3602).await.unwrap(), "Bearer token-5");
}

#[tokio::test]
async fn a_token_that_was_refused_is_given_up() {
    let (server, url) = Server::start().await;
    let (account, client) = (account(&url), client());
    let start = Instant::now();
    account.authorization_at(&client, start).await.unwrap();
    // One that was refused at once would be refused again.
    account.refused_at(start + Duration::from_secs(59));
    account.authorization_at(&client, start).await.unwrap();
    assert_eq!(server.asked(), 1);
    account.refused_at(start + Duration::from_secs(60));
    account.authorization_at(&client, start).await.unwrap();
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn what_is_no_token_is_an_error_without_its_text() {
    let (server, url) = Server::start().await;
    let large = format!(r#"{{"access_token":"{}"}}"#, "secret".repeat(20_000));
    for (status, body) in [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"secret"}"#,
        ),
        (302, ""),
        (200, "secret"),
        (200, r#"{"token_type":"secret"}"#),
        (200, r#"{"access_token":""}"#),
        (200, r#"{"access_token":"sec\nret"}"#),
        (200, large.as_str()),
    ] {
        server.answers(status, body);
        let error = account(&url).authorization(&client()).await.unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("secret"),
            "{error:?}"
        );
    }
    let nobody = account("http://127.0.0.1:9/token");
    let error = nobody.authorization(&client()).await.unwrap_err();
    assert!(matches!(error, CredentialsError::NoToken));
}

#[tokio::test]
async fn a_user_who_has_logged_in_shows_what_was_left_behind() {
    let (server, url) = Server::start().await;
    let file = json!({"type": "authorized_user", "client_id": "c", "client_secret": "s&s", "refresh_token": "1//r", "token_uri": url});
    let account = ServiceAccount::read(&file.to_string()).unwrap();
    account.authorization(&client()).await.unwrap();
    assert_eq!(server.member("grant_type"), "refresh_token");
    assert_eq!(server.member("client_secret"), "s&s");
    assert_eq!(server.member("refresh_token"), "1//r");
}

#[test]
fn a_file_says_what_is_wrong_with_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("account.json");
    let sound = json!({"type": "service_account", "private_key": KEY, "client_email": "robot@p"});
    std::fs::write(&path, sound.to_string()).unwrap();
    let account = ServiceAccount::read(path.to_str().unwrap()).unwrap();
    assert_eq!(account.token_uri.as_str(), TOKEN_URI);
    assert_eq!(format!("{account:?}"), r#"ServiceAccount("robot@p")"#);
    let with = |member: &str, value: Value| {
        let mut file = sound.clone();
        file[member] = value;
        file.to_string()
    };
    for (given, wrong) in [
        ("/nowhere/account.json".to_owned(), "cannot be read"),
        ("{\"secret\"".to_owned(), "not one of"),
        (with("type", json!("external_account")), "not one of"),
        (with("private_key", json!("secret")), "no RSA key"),
        (
            with("token_uri", json!("http://a.example/token")),
            "no https address",
        ),
    ] {
        let error = ServiceAccount::read(&given).unwrap_err();
        assert!(
            error.contains(wrong) && !error.contains("secret"),
            "{error}"
        );
    }
}
