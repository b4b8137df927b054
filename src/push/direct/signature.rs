//! Signature Version 4 with the derived key kept.
//!
//! Deriving the key is four of the five HMACs of a signature, and it is the same for a day. Keys and signatures are made by
//! `aws-sigv4`; only the text that is signed is put together here, since everything in it but the connection, the time and
//! the payload is known before.
//!
//! See [how requests are signed](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::event::Region;
use crate::push::PushError;
use crate::push::payload::sha256_hex;

const SERVICE: &str = "execute-api";
/// What a signed path keeps as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// New credentials are asked for when the old ones expire within this time.
const AHEAD: Duration = Duration::from_secs(5 * 60);
const DAY: u64 = 24 * 60 * 60;

/// Signs requests to one host.
pub(super) struct Signer {
    provider: SharedCredentialsProvider,
    region: Region,
    host: String,
    kept: Mutex<Option<Arc<Kept>>>,
    /// Only one task asks the provider.
    asking: tokio::sync::Mutex<()>,
}

/// A request as far as its signature is concerned.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'static str,
    /// As it is sent, with its encoding.
    pub(super) path: &'a str,
    pub(super) payload_sha256: &'a str,
}

/// The headers that make a request a signed one.
pub(super) struct Signed {
    pub(super) authorization: HeaderValue,
    pub(super) date: HeaderValue,
    pub(super) token: Option<HeaderValue>,
}

/// What is the same for a day and its credentials.
struct Kept {
    day: u64,
    /// `20261122`
    date: String,
    /// `20261122/eu-central-1/execute-api/aws4_request`
    scope: String,
    key: Vec<u8>,
    credentials: Credentials,
    token: Option<(HeaderValue, String)>,
}

impl Signer {
    pub(super) fn new(provider: SharedCredentialsProvider, region: Region, host: String) -> Self {
        Self { provider, region, host, kept: Mutex::new(None), asking: tokio::sync::Mutex::new(()) }
    }

    /// Signs for this time.
    pub(super) async fn sign(&self, request: &Unsigned<'_>, now: SystemTime) -> Result<Signed, PushError> {
        let kept = self.kept(now).await?;
        kept.sign(&self.host, request, now).map_err(|source| PushError::Credentials { source: Box::new(source) })
    }

    /// Asks for credentials anew the next time: those that were kept have been refused.
    pub(super) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn kept(&self, now: SystemTime) -> Result<Arc<Kept>, PushError> {
        if let Some(kept) = self.fresh(now) {
            return Ok(kept);
        }
        let _asking = self.asking.lock().await;
        if let Some(kept) = self.fresh(now) {
            return Ok(kept);
        }
        let old = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let credentials = match (self.provider.provide_credentials().await, old) {
            (Ok(credentials), _) => credentials,
            // They will do for a little longer.
            (Err(_), Some(old)) if !old.expires_within(Duration::ZERO, now) => old.credentials.clone(),
            (Err(error), _) => return Err(PushError::Credentials { source: Box::new(error) }),
        };
        let kept = Arc::new(Kept::new(credentials, &self.region, SERVICE, now)?);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&kept));
        Ok(kept)
    }

    /// What is kept, when it is right for this time.
    fn fresh(&self, now: SystemTime) -> Option<Arc<Kept>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        (kept.day == day(now) && !kept.expires_within(AHEAD, now)).then_some(kept)
    }
}

impl Kept {
    fn new(credentials: Credentials, region: &Region, service: &str, now: SystemTime) -> Result<Self, PushError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| PushError::Credentials { source };
        let date = Timestamp::try_from(now).map_err(|error| unusable(Box::new(error)))?.strftime("%Y%m%d").to_string();
        let token = match credentials.session_token() {
            None => None,
            Some(token) => {
                let mut header = HeaderValue::from_str(token).map_err(|error| unusable(Box::new(error)))?;
                header.set_sensitive(true);
                Some((header, token.to_owned()))
            }
        };
        Ok(Self {
            day: day(now),
            scope: format!("{date}/{region}/{service}/aws4_request"),
            date,
            key: generate_signing_key(credentials.secret_access_key(), now, region.as_str(), service).as_ref().to_vec(),
            credentials,
            token,
        })
    }

    fn expires_within(&self, time: Duration, now: SystemTime) -> bool {
        match (self.credentials.expiry(), now.checked_add(time)) {
            (Some(expiry), Some(then)) => expiry <= then,
            _ => false,
        }
    }

    /// Text is put together by hand: `format!` would take as long as the hashes.
    fn sign(&self, host: &str, request: &Unsigned<'_>, now: SystemTime) -> Result<Signed, InvalidHeaderValue> {
        let Self { date, scope, key, credentials, token, .. } = self;
        let second = seconds(now).checked_rem(DAY).unwrap_or_default();
        let time = format!("{date}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60);

        let mut text = String::with_capacity(1024);
        push_all(&mut text, &[request.method, "\n"]);
        text.extend(utf8_percent_encode(request.path, PATH));
        push_all(&mut text, &["\n\nhost:", host, "\nx-amz-date:", &time]);
        let signed_headers = match &token {
            None => "host;x-amz-date",
            Some((_, token)) => {
                push_all(&mut text, &["\nx-amz-security-token:", token]);
                "host;x-amz-date;x-amz-security-token"
            }
        };
        push_all(&mut text, &["\n\n", signed_headers, "\n", request.payload_sha256]);
        let digest = sha256_hex(text.as_bytes());

        text.clear();
        push_all(&mut text, &["AWS4-HMAC-SHA256\n", &time, "\n", scope, "\n", &digest]);
        let signature = calculate_signature(key, text.as_bytes());

        text.clear();
        let id = credentials.access_key_id();
        push_all(&mut text, &["AWS4-HMAC-SHA256 Credential=", id, "/", scope]);
        push_all(&mut text, &[", SignedHeaders=", signed_headers, ", Signature=", &signature]);
        let mut authorization = HeaderValue::from_str(&text)?;
        authorization.set_sensitive(true);
        let token = token.as_ref().map(|(header, _)| header.clone());
        Ok(Signed { authorization, date: HeaderValue::try_from(time)?, token })
    }
}

fn push_all(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn day(time: SystemTime) -> u64 {
    seconds(time).checked_div(DAY).unwrap_or_default()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has failed, which is all it can do"
)]
mod tests;
