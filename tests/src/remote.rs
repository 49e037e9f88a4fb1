//! A gateway as its clients and its operator reach it: over HTTP alone.

use std::net::SocketAddr;

use billing::Credits;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{ADMIN_KEY, Balance, Customer, Plain, Streaming, eventually, in_time};

/// A gateway at an address.
pub struct Remote {
    /// The client that all calls go through.
    pub client: Client,
    addr: SocketAddr,
}

impl Remote {
    /// The gateway at this address, with connections of its own.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            client: client(),
            addr,
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A call to a path, with a key.
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
}

/// The value of a metric without labels, or with exactly these.
#[must_use]
pub fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.parse().ok()
    })
}

fn client() -> Client {
    // Fails when another test of this process was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirects = reqwest::redirect::Policy::none();
    Client::builder().redirect(redirects).build().unwrap()
}
