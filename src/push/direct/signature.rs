//! Signature Version 4 with a cached key.
//!
//! Deriving the key takes four of the five HMACs of a signature, and the key is the same for a day.
//! `aws-sigv4` derives keys and computes signatures. Only the string to sign is built here, because
//! everything in it except the connection, the time, and the payload is known in advance.
//!
//! See [how requests are
//! signed](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::credentials::{Held, Keeper};
use crate::event::Region;
use crate::push::PushError;
use crate::push::payload::sha256_hex;

const SERVICE: &str = "execute-api";
/// The characters that a signed path leaves unencoded.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
const DAY: u64 = 24 * 60 * 60;

/// Signs requests to one host.
pub(super) struct Signer {
    keeper: Keeper,
    region: Region,
    host: String,
    kept: Mutex<Option<Arc<Kept>>>,
}

/// The parts of a request that its signature covers.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'static str,
    /// As sent, percent-encoded.
    pub(super) path: &'a str,
    pub(super) payload_sha256: &'a str,
}

/// The headers of a signed request.
pub(super) struct Signed {
    pub(super) authorization: HeaderValue,
    pub(super) date: HeaderValue,
    pub(super) token: Option<HeaderValue>,
    /// The number of the credentials.
    pub(super) number: u64,
}

/// The values that stay the same for one day and one set of credentials.
struct Kept {
    day: u64,
    /// `20261122`
    date: String,
    /// `20261122/eu-central-1/execute-api/aws4_request`
    scope: String,
    key: Vec<u8>,
    held: Arc<Held>,
    token: Option<(HeaderValue, String)>,
}

impl Signer {
    pub(super) fn new(keeper: Keeper, region: Region, host: String) -> Self {
        Self { keeper, region, host, kept: Mutex::new(None) }
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Signs a request at this time.
    pub(super) async fn sign(&self, request: &Unsigned<'_>, now: SystemTime) -> Result<Signed, PushError> {
        let held = self.keeper.credentials(now).await?;
        let kept = self.kept(held, now)?;
        kept.sign(&self.host, request, now).map_err(|source| PushError::Credentials { source: Box::new(source) })
    }

    /// Returns the cached values for these credentials and this day.
    fn kept(&self, held: Arc<Held>, now: SystemTime) -> Result<Arc<Kept>, PushError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(kept) if kept.day == day(now) && kept.held.number == held.number => Ok(Arc::clone(kept)),
            _ => Ok(Arc::clone(kept.insert(Arc::new(Kept::new(held, &self.region, SERVICE, now)?)))),
        }
    }
}

impl Kept {
    fn new(held: Arc<Held>, region: &Region, service: &str, now: SystemTime) -> Result<Self, PushError> {
        let credentials = &held.credentials;
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
            held,
            token,
        })
    }

    /// Builds strings by hand: `format!` would take as long as the hashes.
    fn sign(&self, host: &str, request: &Unsigned<'_>, now: SystemTime) -> Result<Signed, InvalidHeaderValue> {
        let Self { date, scope, key, held, token, .. } = self;
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
        let id = held.credentials.access_key_id();
        push_all(&mut text, &["AWS4-HMAC-SHA256 Credential=", id, "/", scope]);
        push_all(&mut text, &[", SignedHeaders=", signed_headers, ", Signature=", &signature]);
        let mut authorization = HeaderValue::from_str(&text)?;
        authorization.set_sensitive(true);
        let token = token.as_ref().map(|(header, _)| header.clone());
        Ok(Signed { authorization, date: HeaderValue::try_from(time)?, token, number: held.number })
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
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a panic fails the test")]
mod tests;
