//! The operator's calls and the clients' reading ones, on a real store behind the real router.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    app::{self, Shared},
    openapi::{route::Access, routes::ROUTES},
    provider_file::ProviderFile,
    serve::{self, Ready},
    settings::{Secret, Settings},
};

const ADMIN: &str = "the-admin-key-of-these-tests";
const PROVIDER: &str = r#"
name = "acme"
dialect = "openai"
base_url = "http://user:password@127.0.0.1:9/v1?key=concealed"
api_key_env = "ACME_API_KEY"
[[models]]
id = "org/large"
context_window = 1000
max_output_tokens = 100
price = { prompt = "2.50", completion = "10", cached_prompt = "1.25" }
[[models]]
id = "small"
context_window = 500
"#;
const PROVIDER_KEY: &str = "the-key-of-the-provider";

/// A gateway without a listener: calls go straight to its router.
struct Gateway {
    router: Router,
    app: Shared,
    _ready: Ready,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
    text: String,
}

impl Gateway {
    async fn start(demo: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            database_url: format!("sqlite://{}/books.db", folder.path().display()),
            admin_key: Some(Secret::new(ADMIN.into())),
            demo,
            ..Settings::default()
        };
        let files = [
            PROVIDER.to_owned(),
            PROVIDER
                .replace("acme", "waiting")
                .replace("ACME", "WAITING"),
        ]
        .map(|text| {
            (
                "p.toml".to_owned(),
                ProviderFile::parse("p.toml", &text).unwrap(),
            )
        });
        let variable = |name: &str| (name == "ACME_API_KEY").then(|| PROVIDER_KEY.to_owned());
        let ready = serve::prepare_with(settings, files.into(), Vec::new(), variable)
            .await
            .unwrap();
        Self {
            router: app::router(ready.app.clone()),
            app: ready.app.clone(),
            _ready: ready,
            _folder: folder,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    async fn call(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    async fn get(&self, key: &str, path: &str) -> Answer {
        self.call(key, Method::GET, path, None).await
    }

    /// A call of the operator's.
    async fn operate(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = (!body.is_null()).then_some(body);
        self.call(ADMIN, method, &format!("/admin/v1{path}"), body)
            .await
    }

    async fn read(&self, path: &str) -> Value {
        let answer = self.operate(Method::GET, path, Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json
    }

    async fn create_key(&self, body: Value) -> Value {
        let answer = self.operate(Method::POST, "/keys", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json
    }

    async fn credit(&self, path: &str, body: &Value, once: &str) -> Answer {
        let request = Request::post(format!("/admin/v1{path}/credits"))
            .header("authorization", format!("Bearer {ADMIN}"))
            .header("idempotency-key", once)
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

/// A route only so that it is not taken for an id: it is passed on, or is nothing.
const NO_PATH: &str = "/v1/responses/compact";

/// Every path and method of the router itself: paths from its debug output, methods from the
/// `Allow` of a 405.
async fn routes_of_the_router(gateway: &Gateway) -> BTreeSet<(String, String)> {
    let shown = format!("{:?}", gateway.router);
    let paths = shown
        .split("paths: {")
        .nth(1)
        .unwrap()
        .split('}')
        .collect::<Vec<_>>()
        .join("}");
    let paths: BTreeSet<&str> = paths
        .split('"')
        .filter(|part| part.starts_with('/'))
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    let mut routes = BTreeSet::new();
    for path in paths {
        let url = path.replace("{id}", "x").replace("{*id}", "x");
        if path == NO_PATH {
            continue;
        }
        let answer = gateway.call(ADMIN, Method::TRACE, &url, None).await;
        assert_eq!(answer.status, 405, "{path}");
        let allow = answer.headers["allow"].to_str().unwrap().to_owned();
        let described = path.replace("{*id}", "{id}");
        // HEAD is GET without a body.
        for method in allow.split(',').filter(|method| *method != "HEAD") {
            routes.insert((method.to_lowercase(), described.clone()));
        }
    }
    routes
}

#[tokio::test]
async fn the_document_has_the_routes_of_the_router() {
    let gateway = Gateway::start(false).await;
    let described: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    assert_eq!(routes_of_the_router(&gateway).await, described);
    let answer = gateway.get("", "/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text, crate::openapi::text().unwrap());
}

#[tokio::test]
async fn no_admin_route_answers_without_the_admin_key() {
    let gateway = Gateway::start(false).await;
    let client = gateway.create_key(json!({"name": "client"})).await;
    let wrong = [
        "",
        "wrong",
        &ADMIN[1..],
        &format!("{ADMIN}x"),
        text(&client, "secret"),
    ];
    let mut admin_routes = 0;
    for (method, path) in routes_of_the_router(&gateway).await {
        if !path.starts_with("/admin/") {
            continue;
        }
        admin_routes += 1;
        for key in wrong {
            for method in [&method.to_uppercase(), "PUT", "TRACE"] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let path = path.replace("{id}", text(&client, "id"));
                let answer = gateway.call(key, method.clone(), &path, None).await;
                assert_eq!(answer.status, 401, "{method} {path} with {key:?}");
                assert_eq!(answer.json["error"]["code"], "invalid_api_key");
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
            }
        }
    }
    assert_eq!(
        admin_routes,
        ROUTES
            .iter()
            .filter(|r| r.access == Access::Operator)
            .count()
    );
}

#[tokio::test]
async fn no_client_route_answers_without_a_key() {
    let gateway = Gateway::start(false).await;
    for route in ROUTES.iter().filter(|route| route.access == Access::Client) {
        for key in ["", "wrong", ADMIN] {
            let method = Method::from_bytes(route.method.to_uppercase().as_bytes()).unwrap();
            let answer = gateway
                .call(
                    key,
                    method,
                    &route.path.replace("{id}", "small"),
                    Some(json!({})),
                )
                .await;
            assert_eq!(answer.status, 401, "{} with {key:?}", route.path);
        }
    }
}

#[tokio::test]
async fn an_account_is_made_read_and_changed() {
    let gateway = Gateway::start(false).await;
    let body = json!({"name": "Ada", "overdraft": "1.5", "metadata": {"plan": ["a", 1]}});
    let made = gateway.operate(Method::POST, "/accounts", body).await;
    assert_eq!(made.status, 201);
    let id = text(&made.json, "id").to_owned();
    assert!(id.starts_with("acct_"));
    assert_eq!(made.json["object"], "account");
    assert_eq!(made.json["overdraft"], "1.5");
    assert_eq!(
        made.json["balance"],
        json!({"available": "0", "held": "0", "total": "0", "used": "0"})
    );
    let path = format!("/accounts/{id}");
    assert_eq!(gateway.read(&path).await, made.json);
    let change = json!({"disabled": true, "name": "Bo"});
    let changed = gateway.operate(Method::PATCH, &path, change).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(changed.json["disabled"], true);
    assert_eq!(changed.json["name"], "Bo");
    // What was not named stays.
    assert_eq!(changed.json["metadata"], json!({"plan": ["a", 1]}));
    assert_eq!(changed.json["overdraft"], "1.5");
    let unknown = gateway
        .operate(
            Method::GET,
            "/accounts/acct_00000000000000000000000000000000",
            Value::Null,
        )
        .await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json["error"]["code"]),
        (404, &json!("not_found"))
    );
}

#[tokio::test]
async fn x3_credits_come_once_for_each_idempotency_key() {
    let gateway = Gateway::start(false).await;
    let key = gateway
        .create_key(json!({"name": "k", "credits": "1"}))
        .await;
    let account = format!("/accounts/{}", text(&key, "account_id"));
    let body = json!({"amount": "2.5", "reference": "pi_1"});
    let first = gateway.credit(&account, &body, "event-1").await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(first.json["amount"], "2.5");
    assert_eq!(first.json["kind"], "purchase");
    let again = gateway.credit(&account, &body, "event-1").await;
    assert_eq!(again.status, 200);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.json, first.json);
    // By the key it is the same call to the same account.
    let by_key = format!("/keys/{}", text(&key, "id"));
    assert_eq!(gateway.credit(&by_key, &body, "event-1").await.status, 200);
    let other = gateway
        .credit(
            &account,
            &json!({"amount": "2.6", "reference": "pi_1"}),
            "event-1",
        )
        .await;
    assert_eq!(
        (other.status.as_u16(), &other.json["error"]["code"]),
        (409, &json!("conflict"))
    );
    let second = gateway.credit(&by_key, &body, "event-2").await;
    assert_eq!(second.status, 201);
    let balance = gateway.read(&account).await["balance"].clone();
    assert_eq!(balance["available"], "6");
    assert_eq!(balance["total"], "6");
    let entries = gateway.read(&format!("{account}/entries")).await;
    let amounts: Vec<&str> = entries["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| text(entry, "amount"))
        .collect();
    assert_eq!(amounts, ["2.5", "2.5", "1"]);
    for bad in ["", " ", "a b", &"x".repeat(256)] {
        let answer = gateway.credit(&account, &body, bad).await;
        assert_eq!(answer.status, 400, "{bad:?}");
        assert_eq!(answer.json["error"]["param"], "Idempotency-Key");
    }
}

#[tokio::test]
async fn p7_an_amount_has_the_sign_of_its_kind() {
    let gateway = Gateway::start(false).await;
    let key = gateway
        .create_key(json!({"name": "k", "credits": "1"}))
        .await;
    let account = format!("/accounts/{}", text(&key, "account_id"));
    let path = format!("{account}/credits");
    for (body, status) in [
        (json!({"amount": "-0.5"}), 400),
        (json!({"amount": "-0.5", "kind": "promo"}), 400),
        (json!({"amount": "0"}), 400),
        (json!({"amount": "0", "kind": "adjustment"}), 400),
        (json!({"amount": "1", "kind": "expiry"}), 400),
        (json!({"amount": "1", "kind": "gift"}), 400),
        (
            json!({"amount": "1", "expires_at": "2020-01-01T00:00:00Z"}),
            400,
        ),
        (json!({"amount": "-1.000000001", "kind": "refund"}), 409),
        (
            json!({"amount": "-9223372036.854775808", "kind": "adjustment"}),
            400,
        ),
        (json!({"amount": "-0.75", "kind": "refund"}), 201),
        (json!({"amount": "-0.25", "kind": "adjustment"}), 201),
        (json!({"amount": "-0.000000001", "kind": "adjustment"}), 409),
    ] {
        let answer = gateway.operate(Method::POST, &path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
    }
    assert_eq!(gateway.read(&account).await["balance"]["total"], "0");
    assert_eq!(gateway.read("/audit").await["balanced"], true);
}

#[tokio::test]
async fn a_wrong_body_is_refused_by_name_and_changes_nothing() {
    let gateway = Gateway::start(false).await;
    let key = gateway.create_key(json!({"name": "k"})).await;
    let credits = format!("/keys/{}/credits", text(&key, "id"));
    let one_key = format!("/keys/{}", text(&key, "id"));
    let one_account = format!("/accounts/{}", text(&key, "account_id"));
    let (post, patch) = (Method::POST, Method::PATCH);
    for (method, path, body, param) in [
        (&post, credits.as_str(), json!({"amount": 5}), "amount"),
        (&post, &credits, json!({"amount": 1.5}), "amount"),
        (&post, &credits, json!({"amount": "5e3"}), "amount"),
        (&post, &credits, json!({"amount": "0.0000000001"}), "amount"),
        (&post, &credits, json!({"amount": "99999999999"}), "amount"),
        (&post, &credits, json!({}), "amount"),
        (
            &post,
            &credits,
            json!({"amount": "5", "expire_at": "2030-01-01"}),
            "expire_at",
        ),
        (
            &post,
            &credits,
            json!({"amount": "5", "expires_at": "soon"}),
            "expires_at",
        ),
        (
            &post,
            &credits,
            json!({"amount": "5", "kind": null}),
            "kind",
        ),
        (
            &post,
            "/accounts",
            json!({"name": "a", "overdraft": "-1"}),
            "overdraft",
        ),
        (&post, "/accounts", json!({"name": ""}), "name"),
        (
            &post,
            "/accounts",
            json!({"name": "a", "metadata": []}),
            "metadata",
        ),
        (&post, "/keys", json!({"name": "a", "limit": -1}), "limit"),
        (&post, "/keys", json!({"name": "a", "limit": "-1"}), "limit"),
        (
            &post,
            "/keys",
            json!({"name": "a", "credits": "-1"}),
            "credits",
        ),
        (
            &post,
            "/keys",
            json!({"name": "a", "credit": "1"}),
            "credit",
        ),
        (
            &post,
            "/keys",
            json!({"name": "a", "account_id": "key_1"}),
            "account_id",
        ),
        (
            &post,
            "/keys",
            json!({"name": "a", "models": "small"}),
            "models",
        ),
        (
            &post,
            "/keys",
            json!({"name": "a", "models": [1]}),
            "models[0]",
        ),
        (&patch, &one_key, json!({"name": null}), "name"),
        (&patch, &one_key, json!({"revoked": true}), "revoked"),
        (&patch, &one_account, json!({"disabled": "yes"}), "disabled"),
        (&patch, &one_account, json!({"balance": "5"}), "balance"),
    ] {
        let answer = gateway.operate(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text);
        let error = &answer.json["error"];
        assert_eq!(error["code"], "invalid_request", "{path} {body}");
        assert_eq!(error["param"], param, "{path} {body}: {}", answer.text);
    }
    assert_eq!(gateway.read(&one_key).await["name"], "k");
    assert_eq!(gateway.read(&one_account).await["balance"]["total"], "0");
    // The demo key's account is the other one.
    assert_eq!(
        gateway.read("/accounts").await["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn bodies_and_metadata_are_bounded_and_must_be_json() {
    let gateway = Gateway::start(false).await;
    let huge = json!({"name": "a", "metadata": {"x": "y".repeat(64 * 1024)}});
    let answer = gateway.operate(Method::POST, "/accounts", huge).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json["error"]["code"]),
        (413, &json!("request_too_large"))
    );
    let large = json!({"name": "a", "metadata": {"x": "y".repeat(16 * 1024)}});
    let answer = gateway.operate(Method::POST, "/accounts", large).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json["error"]["param"]),
        (400, &json!("metadata"))
    );
    for body in ["", "{", "null", "[]", "{\"name\":\"a\"}{}", "name=a"] {
        let request = Request::post("/admin/v1/accounts")
            .header("authorization", format!("Bearer {ADMIN}"))
            .body(Body::from(body))
            .unwrap();
        let answer = gateway.send(request).await;
        assert_eq!(answer.status, 400, "{body:?}");
        assert_eq!(
            answer.json["error"]["type"], "invalid_request_error",
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn wrong_queries_and_paths_are_refused_by_name() {
    let gateway = Gateway::start(false).await;
    for (path, param) in [
        ("/accounts?limit=0", "limit"),
        ("/accounts?limit=1001", "limit"),
        ("/accounts?cursor=x", "cursor"),
        ("/accounts?page=2", "page"),
        ("/keys?account_id=acct_1", "account_id"),
        ("/keys?with_revoked=1", "with_revoked"),
        ("/charges?end=done", "end"),
        ("/charges?from=yesterday", "from"),
        ("/charges?model=", "model"),
        ("/charges?model=a%00", "model"),
        ("/usage?group_by=day,user", "group_by"),
        ("/usage?group_by=day&group_by=model", "group_by"),
        ("/models?limit=x", "limit"),
        ("/accounts/x", "id"),
        ("/accounts/%ff", "id"),
        ("/keys/acct_00000000000000000000000000000000", "id"),
    ] {
        let answer = gateway.operate(Method::GET, path, Value::Null).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert_eq!(answer.json["error"]["code"], "invalid_request", "{path}");
        assert_eq!(answer.json["error"]["param"], param, "{path}");
    }
    let answer = gateway.operate(Method::PUT, "/keys", Value::Null).await;
    assert_eq!(answer.json["error"]["code"], "method_not_allowed");
    assert_eq!(answer.headers["allow"], "POST,GET,HEAD");
}

#[tokio::test]
async fn a_key_lives_and_its_secret_is_shown_twice() {
    let gateway = Gateway::start(false).await;
    let body = json!({
        "name": "app", "credits": "3", "limit": "2", "models": ["org/large"],
        "expires_at": "2099-01-01T00:00:00Z", "metadata": {"team": "x"},
    });
    let made = gateway.create_key(body).await;
    let first = text(&made, "secret").to_owned();
    assert!(first.starts_with("sk-tw-"));
    assert_eq!(made["account"]["balance"]["available"], "3");
    let path = format!("/keys/{}", text(&made, "id"));
    let key = gateway.read(&path).await;
    assert_eq!(key["limit"], "2");
    assert_eq!(key["remaining"], "2");
    assert_eq!(key["usage"], "0");
    assert_eq!(key["expires_at"], "2099-01-01T00:00:00Z");
    assert!(first.starts_with(text(&key, "prefix")));
    let change = json!({"limit": null, "models": null, "expires_at": null});
    let changed = gateway.operate(Method::PATCH, &path, change).await.json;
    for cleared in ["limit", "models", "expires_at", "remaining"] {
        assert_eq!(changed[cleared], Value::Null, "{cleared}");
    }
    assert_eq!(changed["metadata"], json!({"team": "x"}));
    let rotated = gateway
        .operate(Method::POST, &format!("{path}/rotate"), Value::Null)
        .await;
    assert_eq!(rotated.status, 200);
    assert_eq!(rotated.headers["cache-control"], "no-store");
    let second = text(&rotated.json, "secret").to_owned();
    assert_ne!(first, second);
    assert_eq!(gateway.get(&second, "/v1/key").await.status, 200);
    let revoked = gateway.operate(Method::DELETE, &path, Value::Null).await;
    assert_eq!(revoked.status, 200);
    assert!(revoked.json["revoked_at"].is_string());
    // Twice is fine; a revoked key gets no new secret.
    assert_eq!(
        gateway
            .operate(Method::DELETE, &path, Value::Null)
            .await
            .status,
        200
    );
    let rotated = gateway
        .operate(Method::POST, &format!("{path}/rotate"), Value::Null)
        .await;
    assert_eq!(rotated.status, 400, "{}", rotated.text);
    let listed = |list: Value| {
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|k| k["id"] == made["id"])
    };
    assert!(!listed(gateway.read("/keys").await));
    assert!(listed(gateway.read("/keys?with_revoked=true").await));
    for shown in [
        gateway.read(&path).await,
        gateway.read("/keys?with_revoked=true").await,
        gateway.read("/accounts").await,
        gateway
            .read(&format!("/accounts/{}/entries", text(&made, "account_id")))
            .await,
        gateway.read("/providers").await,
        gateway.read("/models").await,
    ] {
        let shown = shown.to_string();
        for secret in [
            first.as_str(),
            &second,
            ADMIN,
            PROVIDER_KEY,
            "password",
            "concealed",
        ] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
    // What a log could print of the whole program.
    let shown = format!("{:?}", gateway.app);
    for secret in [first.as_str(), &second, ADMIN, PROVIDER_KEY] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn lists_go_on_from_page_to_page() {
    let gateway = Gateway::start(false).await;
    for n in 0..5 {
        let body = json!({"name": format!("a{n}")});
        gateway.operate(Method::POST, "/accounts", body).await;
    }
    let (mut names, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = gateway
            .read(&format!("/accounts?limit=2&cursor={cursor}"))
            .await;
        assert_eq!(page["object"], "list");
        assert_eq!(page["has_more"], page["next_cursor"].is_string());
        let rows = page["data"].as_array().unwrap();
        names.extend(rows.iter().map(|row| text(row, "name").to_owned()));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    // The account of the demo key was the first.
    assert_eq!(names, ["a4", "a3", "a2", "a1", "a0", "demo"]);
    assert_eq!(pages, 3);
    let page = gateway.read("/models?limit=1").await;
    assert_eq!(
        (page["data"].as_array().unwrap().len(), &page["next_cursor"]),
        (1, &json!("1"))
    );
}

#[tokio::test]
async fn l8_a_key_without_credits_reads_models_key_and_credits() {
    let gateway = Gateway::start(false).await;
    let key = gateway.create_key(json!({"name": "empty"})).await;
    let secret = text(&key, "secret");
    let own = gateway.get(secret, "/v1/key").await.json;
    assert_eq!(own["id"], key["id"]);
    assert_eq!(own["remaining"], "0");
    assert_eq!(own["limit"], Value::Null);
    let credits = gateway.get(secret, "/v1/credits").await.json;
    let account = text(&key, "account_id");
    assert_eq!(
        credits,
        json!({
            "object": "credits", "account_id": account,
            "total": "0", "used": "0", "held": "0", "remaining": "0",
        })
    );
    let models = gateway.get(secret, "/v1/models").await.json;
    let ids: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| text(m, "id"))
        .collect();
    assert_eq!(ids, ["acme/org/large", "acme/small", "org/large", "small"]);
    let missing = gateway
        .get(
            secret,
            "/v1/generation?id=req_00000000000000000000000000000000",
        )
        .await;
    assert_eq!(
        (missing.status.as_u16(), &missing.json["error"]["code"]),
        (404, &json!("not_found"))
    );
    for (path, param) in [("/v1/generation", "id"), ("/v1/generation?id=x", "id")] {
        let answer = gateway.get(secret, path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json["error"]["param"]),
            (400, &json!(param))
        );
    }
}

#[tokio::test]
async fn a_model_is_found_by_any_of_its_names_and_within_the_keys_list() {
    let gateway = Gateway::start(false).await;
    let all = gateway.create_key(json!({"name": "all"})).await;
    let some = gateway
        .create_key(json!({"name": "some", "models": ["org/large"]}))
        .await;
    let (all, some) = (text(&all, "secret"), text(&some, "secret"));
    for name in ["org/large", "acme/org/large", "org%2Flarge"] {
        let model = gateway.get(all, &format!("/v1/models/{name}")).await;
        assert_eq!(model.status, 200, "{name}");
        assert_eq!(
            model.json,
            json!({
                "id": name.replace("%2F", "/"), "object": "model", "created": 0, "owned_by": "acme",
                "endpoints": ["chat"], "context_window": 1000, "max_output_tokens": 100,
                "pricing": {
                    "unit": "credits_per_million_tokens",
                    "prompt": "2.5", "completion": "10", "cached_prompt": "1.25",
                },
            })
        );
    }
    // No price is null and never zero.
    assert_eq!(
        gateway.get(all, "/v1/models/small").await.json["pricing"],
        Value::Null
    );
    for (key, name, status, code) in [
        (all, "nothing", 404, "model_not_found"),
        (some, "nothing", 404, "model_not_found"),
        (some, "small", 403, "not_permitted"),
    ] {
        let answer = gateway.get(key, &format!("/v1/models/{name}")).await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.json["error"]["code"], code);
    }
    let listed = gateway.get(some, "/v1/models").await.json;
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| text(m, "id"))
        .collect();
    assert_eq!(ids, ["acme/org/large", "org/large"]);
}

#[tokio::test]
async fn the_remaining_of_a_key_is_the_lesser_of_its_limit_and_the_account() {
    let gateway = Gateway::start(false).await;
    for (credits, limit, remaining) in [("3", "2", "2"), ("1", "2", "1")] {
        let body = json!({"name": "k", "credits": credits, "limit": limit});
        let key = gateway.create_key(body).await;
        let own = gateway.get(text(&key, "secret"), "/v1/key").await.json;
        assert_eq!(own["remaining"], remaining);
        assert_eq!(own["limit"], limit);
    }
}

#[tokio::test]
async fn an_overdraft_is_credit_that_can_be_spent() {
    let gateway = Gateway::start(false).await;
    let body = json!({"name": "invoiced", "overdraft": "1.5"});
    let account = gateway.operate(Method::POST, "/accounts", body).await.json;
    let body = json!({"name": "k", "account_id": account["id"], "credits": "0.5"});
    let key = gateway.create_key(body).await;
    let secret = text(&key, "secret");
    let credits = gateway.get(secret, "/v1/credits").await.json;
    assert_eq!(credits["remaining"], "2");
    assert_eq!(credits["total"], "2");
    assert_eq!(gateway.get(secret, "/v1/key").await.json["remaining"], "2");
}

#[tokio::test]
async fn what_is_configured_is_shown_with_what_is_missing() {
    let gateway = Gateway::start(false).await;
    let providers = gateway.read("/providers").await;
    let by_name: BTreeMap<&str, &Value> = providers["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|provider| (text(provider, "name"), provider))
        .collect();
    assert_eq!(by_name["acme"]["base_url"], "http://127.0.0.1:9/v1");
    assert_eq!(by_name["acme"]["models"], 2);
    assert_eq!(by_name["waiting"]["served"], false);
    assert_eq!(by_name["waiting"]["missing"], json!(["WAITING_API_KEY"]));
    let models = gateway.read("/models").await;
    let large = &models["data"][0];
    assert_eq!(large["full_name"], "acme/org/large");
    assert_eq!(large["price"]["completion"], "10");
    assert_eq!(models["data"][1]["price"], Value::Null);
}

#[tokio::test]
async fn a_request_shows_in_every_book() {
    let gateway = Gateway::start(true).await;
    let key = gateway
        .create_key(json!({"name": "k", "credits": "5"}))
        .await;
    let secret = text(&key, "secret");
    let body = json!({"model": "demo", "messages": [{"role": "user", "content": "Hello"}]});
    let chat = gateway
        .call(secret, Method::POST, "/v1/chat/completions", Some(body))
        .await;
    assert_eq!(chat.status, 200, "{}", chat.text);
    let id = chat.headers["x-request-id"].to_str().unwrap();
    let cost = text(&chat.json["usage"], "cost");
    // At once, as an SDK asks.
    let generation = gateway
        .get(secret, &format!("/v1/generation?id={id}"))
        .await;
    assert_eq!(generation.status, 200, "{}", generation.text);
    let generation = generation.json;
    assert_eq!(generation["id"], id);
    assert_eq!(generation["end"], "completed");
    assert_eq!(generation["cost"], cost);
    assert_eq!(generation["usage"]["cost"], cost);
    for name in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(
            generation["usage"][name], chat.json["usage"][name],
            "{name}"
        );
    }
    let account = text(&key, "account_id");
    let charges = gateway
        .read(&format!("/charges?account_id={account}&end=completed"))
        .await;
    assert_eq!(charges["data"].as_array().unwrap().len(), 1);
    assert_eq!(charges["data"][0]["id"], id);
    assert_eq!(charges["data"][0]["charged"], cost);
    assert_eq!(charges["data"][0]["price_id"].as_str().unwrap().len(), 32);
    for nothing in [
        "end=client_gone",
        "model=other",
        "from=2099-01-01",
        "to=2020-01-01",
    ] {
        let charges = gateway.read(&format!("/charges?{nothing}")).await;
        assert_eq!(charges["data"], json!([]), "{nothing}");
    }
    let sums = gateway
        .read("/usage?group_by=model,end,key,account,provider,day")
        .await;
    let sum = &sums["data"][0];
    assert_eq!(
        (&sum["model"], &sum["key_id"]),
        (&json!("demo"), &key["id"])
    );
    assert_eq!(
        (&sum["requests"], &sum["charged"]),
        (&json!(1), &json!(cost))
    );
    let total = gateway.read("/usage").await;
    assert_eq!(total["data"][0]["charged"], cost);
    assert!(total["data"][0].get("model").is_none());
    let entries = gateway.read(&format!("/accounts/{account}/entries")).await;
    assert_eq!(entries["data"][0]["id"], id);
    assert_eq!(entries["data"][0]["kind"], "charge");
    assert_eq!(entries["data"][0]["amount"], format!("-{cost}"));
    let balance = gateway.read(&format!("/accounts/{account}")).await["balance"].clone();
    assert_eq!(balance["used"], cost);
    assert_eq!(balance["held"], "0");
    let credits = gateway.get(secret, "/v1/credits").await.json;
    assert_eq!(credits["total"], "5");
    assert_eq!(credits["used"], cost);
    assert_eq!(credits["remaining"], balance["available"]);
    assert_eq!(gateway.get(secret, "/v1/key").await.json["usage"], cost);
    // Another account does not see it.
    let other = gateway.create_key(json!({"name": "other"})).await;
    let answer = gateway
        .get(text(&other, "secret"), &format!("/v1/generation?id={id}"))
        .await;
    assert_eq!(answer.status, 404);
    let audit = gateway.read("/audit").await;
    assert_eq!(audit["balanced"], true, "{audit}");
    assert!(
        audit["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|check| check["ok"] == true)
    );
}

#[tokio::test]
async fn the_program_says_how_it_is() {
    let gateway = Gateway::start(false).await;
    let alive = gateway.get("", "/healthz").await;
    assert_eq!(
        (alive.status.as_u16(), alive.json),
        (200, json!({"status": "ok"}))
    );
    let ready = gateway.get("", "/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.json,
        json!({"status": "ready", "store": true, "providers": 1, "models": 2})
    );
    let metrics = gateway.get("", "/metrics").await;
    assert_eq!(
        metrics.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(metrics.text.contains("tollway_journal_queue 0"));
    // Once the store is away it is alive and not ready.
    gateway
        .app
        .ledger
        .shutdown(std::time::Duration::from_secs(5))
        .await;
}
