//! Credentials: how a request to a provider says who is paying for it.
//!
//! They are applied to a complete request, last of all, so that what signs a request sees its method,
//! address, headers and body as they are sent.

mod aws;

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};

pub use aws::{AwsKeys, KEYS as AWS_KEYS};

use crate::{
    provider_file::{Auth, ProviderFile},
    service_account::ServiceAccount,
};

/// How the requests to one provider are authenticated.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// They are not.
    None,
    /// By a header that is always the same; its value is marked sensitive.
    Header(HeaderName, HeaderValue),
    /// By a token of Google's cloud, which is renewed.
    ServiceAccount(Arc<ServiceAccount>),
    /// By a signature over each request.
    Signature(AwsKeys),
}

/// Why a request could not be authenticated. Never says anything of a key.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A header cannot carry what was to be sent.
    #[error("a header cannot carry the credentials")]
    NotAHeader,
    /// Nothing can be signed by the key.
    #[error("the key of the service account signs nothing")]
    NotSigned,
    /// The token server cannot be reached, or says nothing in time.
    #[error("no token: the token server does not answer")]
    NoToken,
    /// It refused to give a token.
    #[error("no token: the token server answered {status}")]
    Refused {
        /// With this status.
        status: u16,
    },
    /// It answered something else than a token.
    #[error("no token: the token server answered something else")]
    NotAToken,
    /// A request cannot be signed.
    #[error("the request cannot be signed")]
    Unsigned,
}

impl Credentials {
    /// Those that a provider's file asks for; `variable` gives the environment.
    ///
    /// # Errors
    /// What is wrong with the variable's value, without the value.
    pub fn of(
        file: &ProviderFile,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let Some(name) = file.api_key_env.as_deref() else {
            return Ok(Self::None);
        };
        let value = variable(name).unwrap_or_default();
        if file.auth == Auth::Aws && value.is_empty() {
            let base_url = file.resolved_base_url(&variable);
            return Ok(Self::Signature(AwsKeys::of(&base_url, variable)?));
        }
        let (header, value) = match &file.auth {
            Auth::ServiceAccount => {
                let account = ServiceAccount::read(&value);
                let account = account.map_err(|error| format!("{name}: {error}"))?;
                return Ok(Self::ServiceAccount(Arc::new(account)));
            }
            Auth::Bearer | Auth::Aws => (header::AUTHORIZATION, format!("Bearer {value}")),
            Auth::Header(header) => (
                HeaderName::from_bytes(header.as_bytes()).map_err(|error| error.to_string())?,
                value,
            ),
        };
        let value = sensitive(&value)
            .map_err(|_| format!("{name} has a character that no header can carry"))?;
        Ok(Self::Header(header, value))
    }

    /// Puts them into a request that is complete but for them. What changes by time is fetched first,
    /// through `client`.
    ///
    /// # Errors
    /// [`CredentialsError`]: the operator's trouble, not the client's.
    pub async fn apply(
        &self,
        request: &mut Request<Bytes>,
        client: &reqwest::Client,
    ) -> Result<(), CredentialsError> {
        match self {
            Self::None => {}
            Self::Header(name, value) => {
                request.headers_mut().insert(name, value.clone());
            }
            Self::ServiceAccount(account) => {
                let value = Box::pin(account.authorization(client)).await?;
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            Self::Signature(keys) => keys.sign(request, SystemTime::now())?,
        }
        Ok(())
    }

    /// Told when the provider has not accepted them: what can be had anew is not kept.
    pub fn refused(&self) {
        match self {
            Self::None | Self::Header(..) | Self::Signature(_) => {}
            Self::ServiceAccount(account) => account.refused(),
        }
    }
}

/// A header's value that is never shown.
pub(crate) fn sensitive(value: &str) -> Result<HeaderValue, CredentialsError> {
    let mut value =
        HeaderValue::from_str(value.trim()).map_err(|_| CredentialsError::NotAHeader)?;
    value.set_sensitive(true);
    Ok(value)
}
