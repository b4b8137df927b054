//! The serialized form of a reply address.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ReplyAddress;
use crate::event::{ApiId, ConnectionId, CorrelationId, Region, RequestId, Stage, TraceContext};
use crate::keys::{Keys, Known};
use crate::push::Endpoint;

const VERSION: &str = "1";
/// Longer strings were not made by this crate.
const MAX_LENGTH: usize = 4096;

/// A [`ReplyAddress`] as an opaque string.
///
/// It has about 400 letters, digits, `.`, `-` and `_`, and serializes as a JSON string. Its content
/// is not secret, but cannot be modified unless it is unsigned.
///
/// | sealed by | opened by | use for |
/// |---|---|---|
/// | [`Job::seal`](super::Job::seal) | [`Job::open`](super::Job::open), [`open_for`](Self::open_for) its job | a queue |
/// | [`ReplyAddress::seal_unbound`] | [`open_unbound`](Self::open_unbound) | a workflow's input, a database's column |
/// | [`ReplyAddress::unsigned`] | [`open_unchecked`](Self::open_unchecked) | tests, and queues that nobody else can write to |
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedAddress(String);

/// The string is not a valid reply address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// The string does not have the form of a reply address.
    #[error("this is not a reply address: expected {expected}")]
    Malformed {
        /// The expected form.
        expected: &'static str,
    },
    /// The address was made by a newer version of this crate.
    #[error("the reply address has the version {found:?}: expected version 1")]
    Version {
        /// The version of the address.
        found: String,
    },
    /// The address is not signed.
    #[error("the reply address is not signed")]
    Unsigned,
    /// The address is signed with an unknown key.
    #[error("the reply address is signed with the key {key_id:?}, which is not known")]
    UnknownKey {
        /// The key's name.
        key_id: String,
    },
    /// The address is signed with a retired key.
    #[error("the reply address is signed with the key {key_id:?}, which is retired")]
    RetiredKey {
        /// The key's name.
        key_id: String,
    },
    /// The signature is wrong: the address was modified, or signed with another secret.
    #[error("the signature of the reply address is wrong: it was changed, or signed with another secret")]
    Tampered,
    /// The address was sealed with another job: the job was replaced or modified in transit.
    #[error("the reply address was sealed with another job: expected exactly the bytes that were sealed")]
    OtherJob,
    /// The address was sealed without a job, but is opened with one.
    #[error("the reply address is not bound to a job: seal it with `Job::seal`")]
    Unbound,
    /// The address was sealed with a job, but is opened without it.
    #[error("the reply address is bound to a job: open it together with that job")]
    Bound,
    /// The address has expired.
    #[error("the reply address has expired {} s ago", .since.as_secs())]
    Expired {
        /// The request's correlation id. A client may have chosen it, so the error message omits
        /// it.
        correlation_id: CorrelationId,
        /// How long ago the address expired.
        since: Duration,
    },
}

/// The content of an address. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Content(
    ConnectionId,
    /// The endpoint's URL, and what the URL does not contain: its region, and its API and stage.
    String,
    Option<Region>,
    Option<(ApiId, Stage)>,
    /// The JSON of the correlation id, and the request id if there is one: empty if both are the
    /// same.
    String,
    Option<String>,
    /// When the address expires, and when the connection began to open.
    u64,
    Option<u64>,
    /// The job's id, and the SHA-256 of its bytes in base64.
    Option<String>,
    Option<String>,
    /// The trace. An address made by an earlier version has none.
    #[serde(default)]
    Option<TraceContext>,
);

/// Whether an address must be bound to a job.
#[derive(Debug, Clone, Copy)]
pub(super) enum Binding<'a> {
    /// Bound to these bytes.
    To(&'a str),
    /// Bound to these bytes, or sealed without a job.
    #[cfg_attr(not(feature = "worker"), allow(dead_code, reason = "a worker can be configured to accept both"))]
    MaybeTo(&'a str),
    /// Sealed without a job.
    Unbound,
}

impl ReplyAddress {
    /// Seals the address without a job and signs it with the current key.
    ///
    /// It can be used for any job: anyone who can read the address and write to the worker's queue
    /// can send its client the result of any job until the address expires. If the address travels
    /// with its job, use [`Job::seal`](super::Job::seal).
    pub fn seal_unbound(&self, keys: &Keys) -> SealedAddress {
        self.seal(None, keys)
    }

    /// Serializes the address without a signature.
    ///
    /// Use it only for queues that nobody else can write to: a forged address makes the worker push
    /// to any client.
    pub fn unsigned(&self) -> SealedAddress {
        SealedAddress(format!("{}.", self.text("", None)))
    }

    pub(super) fn seal(&self, job: Option<&str>, keys: &Keys) -> SealedAddress {
        let signed = self.text(keys.current(), job);
        let code = URL_SAFE_NO_PAD.encode(keys.code(&signed));
        SealedAddress(format!("{signed}.{code}"))
    }

    fn text(&self, key_id: &str, job: Option<&str>) -> String {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (api, region) = (self.endpoint.api(), self.endpoint.region());
        // The URL of a default endpoint contains all of them.
        let is_default = api.zip(region).is_some_and(|((api_id, stage), region)| {
            Endpoint::new(api_id, region, stage).as_str() == self.endpoint.as_str()
        });
        let content = Content(
            self.connection_id.clone(),
            self.endpoint.as_str().to_owned(),
            region.filter(|_| !is_default).cloned(),
            api.filter(|_| !is_default).map(|(api_id, stage)| (api_id.clone(), stage.clone())),
            self.correlation_id.as_json().to_owned(),
            self.request_id.as_ref().map(|id| match CorrelationId::from(id) == self.correlation_id {
                true => String::new(),
                false => id.to_string(),
            }),
            seconds(self.expires_at),
            self.connecting_since.map(seconds),
            Some(URL_SAFE_NO_PAD.encode(fastrand::u64(..).to_be_bytes())),
            job.map(digest),
            self.trace,
        );
        // Serializing strings and numbers cannot fail.
        let json = serde_json::to_vec(&content).unwrap_or_default();
        format!("{VERSION}.{key_id}.{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl SealedAddress {
    /// Returns the address as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Opens an address that was sealed with exactly this job, as of `now`.
    ///
    /// The signature is compared in constant time.
    ///
    /// # Errors
    ///
    /// - [`InvalidAddress::OtherJob`] if the address was sealed with another job, and
    ///   [`InvalidAddress::Unbound`] if it was sealed without one.
    /// - [`InvalidAddress::Expired`] if it has expired.
    /// - [`InvalidAddress::Malformed`] and [`InvalidAddress::Version`] if it cannot be parsed.
    /// - [`InvalidAddress::Unsigned`], [`InvalidAddress::UnknownKey`],
    ///   [`InvalidAddress::RetiredKey`], and [`InvalidAddress::Tampered`] if none of the keys has
    ///   signed it.
    pub fn open_for(&self, job: &str, keys: &Keys, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
        self.open(Binding::To(job), keys, now)
    }

    /// Opens an address that was [sealed without a job](ReplyAddress::seal_unbound), as of `now`.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress::Bound`] if the address was sealed with a job. Otherwise those of
    /// [`open_for`](Self::open_for), except [`InvalidAddress::OtherJob`] and
    /// [`InvalidAddress::Unbound`].
    pub fn open_unbound(&self, keys: &Keys, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
        self.open(Binding::Unbound, keys, now)
    }

    /// Opens an address without checking its signature or its job, as of `now`.
    ///
    /// Use it only for queues that nobody else can write to.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress::Malformed`] and [`InvalidAddress::Version`] if the address cannot be
    /// parsed; [`InvalidAddress::Expired`] if it has expired.
    pub fn open_unchecked(&self, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
        address(content(self.parts()?.2)?, now)
    }

    pub(super) fn open(
        &self,
        binding: Binding<'_>,
        keys: &Keys,
        now: SystemTime,
    ) -> Result<ReplyAddress, InvalidAddress> {
        let (signed, key_id, sealed, code) = self.parts()?;
        if key_id.is_empty() {
            return Err(InvalidAddress::Unsigned);
        }
        let key = match keys.find(key_id) {
            Known::Key(key) => key.clone(),
            Known::Retired => return Err(InvalidAddress::RetiredKey { key_id: key_id.to_owned() }),
            Known::Unknown => return Err(InvalidAddress::UnknownKey { key_id: key_id.to_owned() }),
        };
        let code = URL_SAFE_NO_PAD.decode(code).map_err(|_| InvalidAddress::Tampered)?;
        key.chain_update(signed).verify_slice(&code).map_err(|_| InvalidAddress::Tampered)?;
        let content = content(sealed)?;
        match (&content.9, binding) {
            (None, Binding::Unbound | Binding::MaybeTo(_)) => {}
            (Some(sealed), Binding::To(job) | Binding::MaybeTo(job)) if *sealed == digest(job) => {}
            (Some(_), Binding::To(_) | Binding::MaybeTo(_)) => return Err(InvalidAddress::OtherJob),
            (None, Binding::To(_)) => return Err(InvalidAddress::Unbound),
            (Some(_), Binding::Unbound) => return Err(InvalidAddress::Bound),
        }
        address(content, now)
    }

    /// Splits the string into the signed part, the key's name, the content, and the signature.
    fn parts(&self) -> Result<(&str, &str, &str, &str), InvalidAddress> {
        let malformed = InvalidAddress::Malformed { expected: "four parts separated by `.`" };
        if self.0.len() > MAX_LENGTH {
            return Err(malformed);
        }
        let (version, _) = self.0.split_once('.').ok_or_else(|| malformed.clone())?;
        if version != VERSION {
            return Err(InvalidAddress::Version { found: version.chars().take(16).collect() });
        }
        let (signed, code) = self.0.rsplit_once('.').ok_or_else(|| malformed.clone())?;
        let mut parts = signed.split('.').skip(1);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(key_id), Some(content), None) => Ok((signed, key_id, content, code)),
            _ => Err(malformed),
        }
    }
}

fn digest(job: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(job))
}

fn content(text: &str) -> Result<Content, InvalidAddress> {
    let malformed = |expected| InvalidAddress::Malformed { expected };
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("base64"))?;
    serde_json::from_slice(&json).map_err(|_| malformed("connection, endpoint, correlation id, times and job"))
}

fn address(content: Content, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
    let Content(connection_id, url, region, api, correlation, request_id, expiry, connecting_since, job_id, _, trace) =
        content;
    let malformed = |expected| InvalidAddress::Malformed { expected };
    let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(|| malformed("a time"));
    let endpoint: Endpoint = url.parse().map_err(|_| malformed("an endpoint"))?;
    let endpoint = match region {
        Some(region) => endpoint.with_region(region),
        None => endpoint,
    };
    let endpoint = match api {
        Some((api_id, stage)) => endpoint.for_api(api_id, stage),
        None => endpoint,
    };
    let correlation_id = CorrelationId::from_address(&correlation).ok_or_else(|| malformed("a correlation id"))?;
    let request_id = request_id.map(|id| match id.as_str() {
        "" => serde_json::from_str(correlation_id.as_json()).map_err(|_| malformed("a request id")),
        id => RequestId::new(id).map_err(|_| malformed("a request id")),
    });
    let request_id = request_id.transpose()?;
    let expires_at = time(expiry)?;
    let connecting_since = connecting_since.map(time).transpose()?;
    match now.duration_since(expires_at) {
        Ok(since) => Err(InvalidAddress::Expired { correlation_id, since }),
        Err(_) => Ok(ReplyAddress {
            connection_id,
            endpoint,
            correlation_id,
            request_id,
            expires_at,
            connecting_since,
            trace,
            job_id,
        }),
    }
}

/// Accepts any string; opening checks whether it is an address.
impl From<String> for SealedAddress {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for SealedAddress {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Shows nothing: anyone who has the address may be able to make a worker push.
impl fmt::Debug for SealedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedAddress").finish_non_exhaustive()
    }
}
