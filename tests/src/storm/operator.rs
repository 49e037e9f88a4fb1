//! The operator in a storm: accounts and keys, credits in and out, limits and revocations.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use auditor::{Credit, Record};
use jiff::Timestamp;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{ADMIN_KEY, Dice, Records, Target};

/// A key and its secret.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
}

/// A customer of the storm.
#[derive(Debug)]
pub struct Account {
    /// 32 hexadecimal digits.
    pub id: String,
    key: Mutex<Key>,
}

impl Account {
    /// The key in use.
    pub(super) fn key(&self) -> Key {
        self.lock().clone()
    }

    /// The id of the key in use.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.key().id
    }

    /// The secret of the key in use.
    #[must_use]
    pub fn secret(&self) -> String {
        self.key().secret
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Key> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls the admin API, and writes down what it was told.
#[derive(Debug)]
pub(super) struct Operator<'a> {
    pub(super) client: &'a Client,
    pub(super) records: &'a Records,
    pub(super) references: &'a AtomicU64,
}

impl Operator<'_> {
    /// A new account with these credits, whose key has this limit.
    pub(super) async fn account(
        &self,
        target: &Target,
        credits: &str,
        limit: Option<&str>,
    ) -> Account {
        let call = json!({"name": "storm", "limit": limit});
        let made = self.call(target, Method::POST, "/keys", call).await;
        let made = made.unwrap_or_else(|| panic!("no account by {}", target.name));
        let account = Account {
            id: hex(&made["account_id"]),
            key: Mutex::new(key(&made)),
        };
        if credits != "0" {
            self.credit(target, &account, credits, "purchase", None)
                .await;
        }
        account
    }

    /// Books credits; a negative amount takes some back, as far as they are there.
    pub(super) async fn credit(
        &self,
        target: &Target,
        account: &Account,
        amount: &str,
        kind: &str,
        expires_in: Option<Duration>,
    ) {
        let number = self.references.fetch_add(1, Ordering::Relaxed);
        let reference = format!("storm-{number}");
        let mut call = json!({"amount": amount, "kind": kind, "reference": reference});
        if let Some(after) = expires_in {
            call["expires_at"] = (Timestamp::now() + after).to_string().into();
        }
        let path = format!("/accounts/acct_{}/credits", account.id);
        let answer = self.send(target, Method::POST, &path, call).await;
        let acknowledged = match answer {
            Some((201, _)) => true,
            // Too little is there to be taken, or the books are away: nothing was booked.
            Some((400..=499, _)) => return,
            Some(_) | None => false,
        };
        self.records.add(Record::Credit(Credit {
            account_id: account.id.clone(),
            reference,
            amount: amount.to_owned(),
            acknowledged,
        }));
    }

    /// Something that operators do.
    pub(super) async fn act(&self, target: &Target, account: &Account, dice: &mut Dice) {
        match dice.below(10) {
            0..4 => {
                let amount = format!("0.00{:03}", 1 + dice.below(999));
                self.credit(target, account, &amount, "purchase", None)
                    .await;
            }
            4..6 => {
                let amount = format!("0.000{:03}", 1 + dice.below(999));
                let life = dice.millis(300, 4_000);
                self.credit(target, account, &amount, "promo", Some(life))
                    .await;
            }
            6..8 => {
                let amount = format!("-0.0000{:02}", 1 + dice.below(99));
                self.credit(target, account, &amount, "refund", None).await;
            }
            8 => self.revoke(target, account, dice).await,
            _ => {
                let limit = dice
                    .once_in(2)
                    .then(|| format!("0.0{:02}", 1 + dice.below(99)));
                let path = format!("/keys/key_{}", account.key_id());
                let call = json!({"limit": limit});
                let _ = self.call(target, Method::PATCH, &path, call).await;
            }
        }
    }

    /// A new key for the account, and the old one's end.
    async fn revoke(&self, target: &Target, account: &Account, dice: &mut Dice) {
        let limit = dice
            .once_in(2)
            .then(|| format!("0.0{:02}", 1 + dice.below(99)));
        let call = json!({
            "name": "another", "account_id": format!("acct_{}", account.id), "limit": limit,
        });
        let Some(made) = self.call(target, Method::POST, "/keys", call).await else {
            return;
        };
        let old = std::mem::replace(&mut *account.lock(), key(&made));
        let path = format!("/keys/key_{}", old.id);
        let _ = self.call(target, Method::DELETE, &path, Value::Null).await;
    }

    async fn call(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        body: Value,
    ) -> Option<Value> {
        let (status, answer) = self.send(target, method, path, body).await?;
        (200..300).contains(&status).then_some(answer)
    }

    /// The status and the body; none where the process died meanwhile.
    async fn send(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        body: Value,
    ) -> Option<(u16, Value)> {
        let url = format!("http://{}/admin/v1{path}", target.addr);
        let mut request = self.client.request(method, url).bearer_auth(ADMIN_KEY);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.ok()?;
        Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

fn key(made: &Value) -> Key {
    Key {
        id: hex(&made["id"]),
        secret: made["secret"].as_str().expect("a secret").to_owned(),
    }
}

/// The digits of an id.
fn hex(id: &Value) -> String {
    let (_, hex) = id.as_str().expect("an id").split_once('_').expect("an id");
    hex.to_owned()
}
