//! Requests signed as Amazon wants them: Signature Version 4, with keys from the environment.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use http::{HeaderName, Request, header};

use super::{CredentialsError, sensitive};

/// The variables of a pair of keys, under the names that people already have set.
pub const KEYS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// The variable that goes with keys that are lent for a while.
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
/// Where the region is, unless the address says it.
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// What is signed for.
const SERVICE: &str = "bedrock";

/// A pair of keys, and the region that they sign for.
#[derive(Clone, Debug)]
pub struct AwsKeys {
    /// Shows nothing of the secret in debug output.
    credentials: Credentials,
    region: String,
}

impl AwsKeys {
    /// Those of the environment, for the provider at `base_url`.
    ///
    /// # Errors
    /// No region, neither in the address nor in a variable.
    pub(super) fn of(
        base_url: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let set = |name: &str| {
            let value = variable(name).map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        let named = REGIONS.iter().find_map(|name| set(name));
        let region = region_in(base_url).or(named).ok_or_else(|| {
            "the region to sign for is not known; set AWS_REGION, or name it in base_url".to_owned()
        })?;
        let [id, secret] = KEYS.map(|name| set(name).unwrap_or_default());
        let token = set(SESSION_TOKEN);
        Ok(Self {
            credentials: Credentials::new(id, secret, token, None, "environment"),
            region,
        })
    }

    /// Signs a request that is complete, as of `now`.
    ///
    /// # Errors
    /// A signature that no header can carry.
    pub(super) fn sign(
        &self,
        request: &mut Request<Bytes>,
        now: SystemTime,
    ) -> Result<(), CredentialsError> {
        let unsigned = |_| CredentialsError::Unsigned;
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| CredentialsError::Unsigned)?
            .into();
        // Proxies change other headers; those of the signature are added by it.
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|value| value.to_str().ok());
        let address = request.uri().to_string();
        let signable = SignableRequest::new(
            request.method().as_str(),
            &address,
            kind.map(|kind| ("content-type", kind)).into_iter(),
            SignableBody::Bytes(request.body()),
        )
        .map_err(unsigned)?;
        let (instructions, _) = sign(signable, &params).map_err(unsigned)?.into_parts();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| CredentialsError::NotAHeader)?;
            request.headers_mut().insert(name, sensitive(value)?);
        }
        Ok(())
    }
}

/// The region in an address of Bedrock's own: `bedrock-runtime.REGION.amazonaws.com`.
fn region_in(base_url: &str) -> Option<String> {
    let url = reqwest::Url::parse(base_url).ok()?;
    let host = url.host_str()?;
    let (service, rest) = host.split_once('.')?;
    let (region, domain) = rest.split_once('.')?;
    let own = service.starts_with("bedrock-runtime") && domain.starts_with("amazonaws.com");
    own.then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 2015-08-30T12:36:00Z, the time of Amazon's own examples.
    const NOW: Duration = Duration::from_secs(1_440_938_160);

    fn keys(token: Option<&str>) -> AwsKeys {
        let variable = |name: &str| {
            Some(match name {
                "AWS_ACCESS_KEY_ID" => "AKIDEXAMPLE".to_owned(),
                "AWS_SECRET_ACCESS_KEY" => "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
                "AWS_SESSION_TOKEN" => token?.to_owned(),
                "AWS_REGION" => "eu-west-9".to_owned(),
                _ => return None,
            })
        };
        AwsKeys::of("https://bedrock-runtime.us-east-1.amazonaws.com", variable).unwrap()
    }

    fn signed(path: &str, token: Option<&str>) -> Request<Bytes> {
        let url = format!("https://bedrock-runtime.us-east-1.amazonaws.com{path}");
        let mut request = Request::post(url)
            .body(Bytes::from_static(br#"{"messages":[]}"#))
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("user-agent", "tollway".parse().unwrap());
        let now = SystemTime::UNIX_EPOCH + NOW;
        keys(token).sign(&mut request, now).unwrap();
        request
    }

    /// The signatures are those of botocore 1.44.5 for the same requests, keys and time.
    #[test]
    fn signatures_are_those_of_amazons_own_client() {
        for (path, token, headers, signature) in [
            (
                "/model/anthropic.claude-x-v1%3A0/converse-stream",
                None,
                "content-type;host;x-amz-date",
                "351d42f003ecc9264e73bc074f7591a615f8ecc052fc3f4b8974c62364f217ac",
            ),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fa/converse",
                Some("session/token=="),
                "content-type;host;x-amz-date;x-amz-security-token",
                "9257f88f14e40db95f1f315576417e0be114d5073059480b3fcd0579844a77e8",
            ),
        ] {
            let request = signed(path, token);
            let header = |name: &str| {
                let value = request.headers().get(name)?;
                Some(value.to_str().unwrap().to_owned())
            };
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/bedrock/aws4_request, SignedHeaders={headers}, Signature={signature}"
            );
            assert_eq!(header("authorization"), Some(expected), "{path}");
            assert_eq!(header("x-amz-date").as_deref(), Some("20150830T123600Z"));
            assert_eq!(header("x-amz-security-token").as_deref(), token);
        }
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let shown = format!(
            "{:?} {:?}",
            keys(Some("session/token==")),
            signed("/model/a/converse", Some("session/token==")).headers()
        );
        assert!(
            !shown.contains("wJalrXUtnFEMI") && !shown.contains("session/token"),
            "{shown}"
        );
        assert!(!shown.contains("Signature="), "{shown}");
    }

    #[test]
    fn the_region_is_in_the_address_or_a_variable() {
        for (url, expected) in [
            (
                "https://bedrock-runtime.us-east-1.amazonaws.com",
                Some("us-east-1"),
            ),
            (
                "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/x",
                Some("us-gov-west-1"),
            ),
            (
                "https://bedrock-runtime.cn-north-1.amazonaws.com.cn",
                Some("cn-north-1"),
            ),
            (
                "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
                None,
            ),
            ("http://127.0.0.1:9", None),
        ] {
            assert_eq!(region_in(url).as_deref(), expected, "{url}");
        }
        let named = AwsKeys::of("http://127.0.0.1:9", |name| {
            (name == "AWS_DEFAULT_REGION").then(|| "eu-west-9".to_owned())
        });
        assert_eq!(named.unwrap().region, "eu-west-9");
        let nowhere = AwsKeys::of("http://127.0.0.1:9", |_| None);
        assert!(nowhere.unwrap_err().contains("AWS_REGION"));
    }
}
