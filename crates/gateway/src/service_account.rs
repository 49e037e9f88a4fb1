//! Access to Google's cloud: signs for a token by a service account's key, keeps it, and renews it before it ends.
//!
//! Source: Google's guide "Using OAuth 2.0 for server to server applications", and RFC 7523.

use std::{
    fmt,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use http::{HeaderValue, header};
use reqwest::Url;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use crate::credentials::{CredentialsError, sensitive};

/// What the tokens are for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Where tokens come from, unless the file says otherwise.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// For how long a signature asks for a token: the most that Google takes.
const ASKED_S: u64 = 3600;
/// A token is renewed so long before it ends, or in the last fifth of its life where that is less.
const RENEWAL_MAX: Duration = Duration::from_secs(300);
/// Time for one answer of the token server.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of such an answer.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// After a failure the token server is left alone for this long.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// A token that was refused is given up where it is older than this: a younger one would be refused
/// again.
const REFUSED_AGE_MIN: Duration = Duration::from_secs(60);

/// An account of Google's cloud, and its token.
pub struct ServiceAccount {
    grant: Grant,
    token_uri: Url,
    current: RwLock<Option<Token>>,
    /// Held by whoever asks for a token; the time and the kind of the last failure.
    asking: Mutex<Option<(Instant, CredentialsError)>>,
}

/// What is shown to the token server.
enum Grant {
    /// A signature by the account's key.
    Key {
        email: String,
        key_id: Option<String>,
        key: Box<RsaKeyPair>,
    },
    /// What `gcloud auth application-default login` leaves behind.
    User {
        client_id: String,
        client_secret: String,
        refresh_token: String,
    },
}

#[derive(Clone)]
struct Token {
    /// `Bearer …`, marked sensitive.
    value: HeaderValue,
    taken: Instant,
    renew: Instant,
    ends: Instant,
}

/// The credentials file, as Google writes it; other members are not read.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum File {
    ServiceAccount {
        client_email: String,
        private_key: String,
        #[serde(default)]
        private_key_id: Option<String>,
        #[serde(default)]
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        #[serde(default)]
        token_uri: Option<String>,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl ServiceAccount {
    /// Reads a credentials file. `given` is its path, or its text.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub fn read(given: &str) -> Result<Self, String> {
        let given = given.trim();
        if given.starts_with('{') {
            return Self::parse(given);
        }
        let text = std::fs::read_to_string(given)
            .map_err(|error| format!("the credentials file cannot be read: {error}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        // serde's own message can quote the text.
        let file: File = serde_json::from_str(text).map_err(|_| {
            "the credentials file is not one of a service account or an authorized user: name another, or unset the variable"
                .to_owned()
        })?;
        let (grant, token_uri) = match file {
            File::ServiceAccount {
                client_email,
                private_key,
                private_key_id,
                token_uri,
            } => {
                let key = PrivatePkcs8KeyDer::from_pem_slice(private_key.as_bytes())
                    .ok()
                    .and_then(|der| RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok())
                    .ok_or("the private_key of the credentials file is no RSA key in PKCS #8")?;
                let grant = Grant::Key {
                    email: client_email,
                    key_id: private_key_id,
                    key: Box::new(key),
                };
                (grant, token_uri)
            }
            File::AuthorizedUser {
                client_id,
                client_secret,
                refresh_token,
                token_uri,
            } => {
                let grant = Grant::User {
                    client_id,
                    client_secret,
                    refresh_token,
                };
                (grant, token_uri)
            }
        };
        let token_uri = Url::parse(token_uri.as_deref().unwrap_or(TOKEN_URI))
            .ok()
            .filter(is_private)
            .ok_or("the token_uri of the credentials file is no https address")?;
        Ok(Self {
            grant,
            token_uri,
            current: RwLock::new(None),
            asking: Mutex::new(None),
        })
    }

    /// The value of the `authorization` header. Many callers share one token, and one of them asks for
    /// the next one, while the others still use the last.
    ///
    /// # Errors
    /// No token, and none to be had.
    pub async fn authorization(
        &self,
        client: &reqwest::Client,
    ) -> Result<HeaderValue, CredentialsError> {
        self.authorization_at(client, Instant::now()).await
    }

    /// Gives up a token that the provider has refused.
    pub fn refused(&self) {
        self.refused_at(Instant::now());
    }

    async fn authorization_at(
        &self,
        client: &reqwest::Client,
        now: Instant,
    ) -> Result<HeaderValue, CredentialsError> {
        let usable = self.usable(now);
        let mut asking = match &usable {
            Some(token) if now < token.renew => return Ok(token.value.clone()),
            Some(token) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(token.value.clone()),
            },
            None => self.asking.lock().await,
        };
        // Another caller may have been faster.
        if let Some(token) = self.usable(now).filter(|token| now < token.renew) {
            return Ok(token.value);
        }
        let failed = asking.as_ref().filter(|(at, _)| now < *at + RETRY_MIN);
        let fetched = match failed {
            Some((_, error)) => Err(error.clone()),
            None => {
                let fetched = self.fetch(client, now).await;
                *asking = fetched.as_ref().err().map(|error| (now, error.clone()));
                fetched
            }
        };
        match (fetched, usable) {
            (Ok(token), _) => {
                let value = token.value.clone();
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Some(token);
                Ok(value)
            }
            // The last one still holds for a while.
            (Err(_), Some(token)) => Ok(token.value),
            (Err(error), None) => Err(error),
        }
    }

    fn usable(&self, now: Instant) -> Option<Token> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|token| now < token.ends)
    }

    fn refused_at(&self, now: Instant) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|token| now >= token.taken + REFUSED_AGE_MIN)
        {
            *current = None;
        }
    }

    async fn fetch(
        &self,
        client: &reqwest::Client,
        now: Instant,
    ) -> Result<Token, CredentialsError> {
        let request = client
            .post(self.token_uri.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(self.form()?)
            .send();
        let asked = async {
            let response = request.await.map_err(|_| CredentialsError::NoToken)?;
            let status = response.status();
            if !status.is_success() {
                return Err(CredentialsError::Refused {
                    status: status.as_u16(),
                });
            }
            let mut body = Vec::new();
            let mut stream = response.bytes_stream();
            while let Some(bytes) = stream.next().await {
                body.extend_from_slice(&bytes.map_err(|_| CredentialsError::NoToken)?);
                if body.len() > TOKEN_BYTES_MAX {
                    return Err(CredentialsError::NotAToken);
                }
            }
            Ok(body)
        };
        let body = tokio::time::timeout(TOKEN_TIMEOUT, asked)
            .await
            .map_err(|_| CredentialsError::NoToken)??;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| CredentialsError::NotAToken)?;
        let token = answer.access_token.filter(|token| !token.is_empty());
        let token = token.ok_or(CredentialsError::NotAToken)?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(ASKED_S).min(ASKED_S));
        let ends = now + life;
        Ok(Token {
            value: sensitive(&format!("Bearer {token}"))?,
            taken: now,
            renew: ends - RENEWAL_MAX.min(life / 5),
            ends,
        })
    }

    /// What is sent to the token server.
    fn form(&self) -> Result<String, CredentialsError> {
        let mut form = self.token_uri.clone();
        match &self.grant {
            Grant::Key { email, key_id, key } => {
                let assertion = self.assertion(email, key_id.as_deref(), key)?;
                form.query_pairs_mut()
                    .clear()
                    .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
                    .append_pair("assertion", &assertion);
            }
            Grant::User {
                client_id,
                client_secret,
                refresh_token,
            } => {
                form.query_pairs_mut()
                    .clear()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", client_id)
                    .append_pair("client_secret", client_secret)
                    .append_pair("refresh_token", refresh_token);
            }
        }
        Ok(form.query().unwrap_or_default().to_owned())
    }

    /// A JSON Web Token (RFC 7519), signed by RS256 (RFC 7518).
    fn assertion(
        &self,
        email: &str,
        key_id: Option<&str>,
        key: &RsaKeyPair,
    ) -> Result<String, CredentialsError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.unwrap_or_default().as_secs();
        let mut head = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(key_id) = key_id {
            head["kid"] = json!(key_id);
        }
        let claims = json!({"iss": email, "scope": SCOPE, "aud": self.token_uri.as_str(), "iat": now, "exp": now + ASKED_S});
        let part = |json: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .map_err(|_| CredentialsError::NotSigned)?;
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        Ok(format!("{signed}.{signature}"))
    }
}

impl fmt::Debug for ServiceAccount {
    /// Says who, and nothing that is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match &self.grant {
            Grant::Key { email, .. } => email,
            Grant::User { client_id, .. } => client_id,
        };
        f.debug_tuple("ServiceAccount").field(who).finish()
    }
}

/// Whether what is sent there cannot be read on the way: https, or a server on this machine.
fn is_private(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
