//! An address as the opaque text that travels.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use serde::{Deserialize, Serialize};

use super::keys::Known;
use super::{Keys, ReplyAddress};
use crate::event::{ConnectionId, CorrelationId, Region};
use crate::push::Endpoint;

const VERSION: &str = "1";
/// Longer ones were not made here.
const LONGEST: usize = 4096;

/// A [`ReplyAddress`] as one opaque text of some 200 letters, digits, `.`, `-` and `_`.
///
/// It is a string in JSON. What it says is not secret, but nobody can change it; [open](Self::open) it to use it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedAddress(String);

/// The text is not an address that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// It does not have the form of an address.
    #[error("this is not a reply address: expected {expected}")]
    Malformed {
        /// What was expected.
        expected: &'static str,
    },
    /// It was made by a newer version of this crate.
    #[error("the reply address has the version {found:?}, and this is version 1")]
    Version {
        /// The version.
        found: String,
    },
    /// Nobody has signed it.
    #[error("the reply address is not signed")]
    Unsigned,
    /// It is signed with a key that nobody here knows.
    #[error("the reply address is signed with the key {key_id:?}, which is not known")]
    UnknownKey {
        /// The key's name.
        key_id: String,
    },
    /// It is signed with a key that is not used any more.
    #[error("the reply address is signed with the key {key_id:?}, which is retired")]
    RetiredKey {
        /// The key's name.
        key_id: String,
    },
    /// The signature does not fit: somebody has changed the address, or signed with another secret.
    #[error("the signature of the reply address is wrong: it was changed, or signed with another secret")]
    Tampered,
    /// It is too old.
    #[error("the reply address of {correlation_id} has expired {} s ago", .since.as_secs())]
    Expired {
        /// Which question it was.
        correlation_id: CorrelationId,
        /// For how long.
        since: Duration,
    },
}

/// What an address says: connection, endpoint, region, correlation id, and the second of its expiry.
type Content = (ConnectionId, String, Option<Region>, CorrelationId, u64);

impl ReplyAddress {
    /// Makes the text that travels, signed with the current key.
    pub fn seal(&self, keys: &Keys) -> SealedAddress {
        let signed = self.text(keys.current());
        let code = URL_SAFE_NO_PAD.encode(keys.code(&signed));
        SealedAddress(format!("{signed}.{code}"))
    }

    /// Makes the text that travels without a signature.
    ///
    /// For queues that nobody else can write to. Who can forge an address lets the worker push what it knows to anybody.
    pub fn unsigned(&self) -> SealedAddress {
        SealedAddress(format!("{}.", self.text("")))
    }

    fn text(&self, key_id: &str) -> String {
        let expiry = self.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let content: (&ConnectionId, &str, Option<&Region>, &CorrelationId, u64) =
            (&self.connection_id, self.endpoint.as_str(), self.endpoint.region(), &self.correlation_id, expiry);
        // Five texts and numbers are always JSON.
        let json = serde_json::to_vec(&content).unwrap_or_default();
        format!("{VERSION}.{key_id}.{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl SealedAddress {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Opens an address that one of the keys has signed, at this time.
    ///
    /// The signature is compared in constant time.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] says what is wrong with it.
    pub fn open(&self, keys: &Keys, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
        let (signed, key_id, content, code) = self.parts()?;
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
        address(content, now)
    }

    /// Opens an address whether it is signed or not, without a look at the signature.
    ///
    /// For queues that nobody else can write to.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] says what is wrong with it.
    pub fn open_unchecked(&self, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
        address(self.parts()?.2, now)
    }

    /// What is signed, the key's name, the content, and the code.
    fn parts(&self) -> Result<(&str, &str, &str, &str), InvalidAddress> {
        let malformed = InvalidAddress::Malformed { expected: "four parts with a `.` between them" };
        if self.0.len() > LONGEST {
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

fn address(content: &str, now: SystemTime) -> Result<ReplyAddress, InvalidAddress> {
    let malformed = |expected| InvalidAddress::Malformed { expected };
    let json = URL_SAFE_NO_PAD.decode(content).map_err(|_| malformed("base64"))?;
    let (connection_id, url, region, correlation_id, expiry): Content =
        serde_json::from_slice(&json).map_err(|_| malformed("connection, endpoint, region, correlation id, expiry"))?;
    let endpoint: Endpoint = url.parse().map_err(|_| malformed("an endpoint"))?;
    let endpoint = match region {
        Some(region) => endpoint.with_region(region),
        None => endpoint,
    };
    let expires_at =
        UNIX_EPOCH.checked_add(Duration::from_secs(expiry)).ok_or_else(|| malformed("a time of expiry"))?;
    match now.duration_since(expires_at) {
        Ok(since) => Err(InvalidAddress::Expired { correlation_id, since }),
        Err(_) => Ok(ReplyAddress::new(connection_id, endpoint, correlation_id, expires_at)),
    }
}

/// Takes any text; [`open`](SealedAddress::open) tells whether it is one.
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

/// Shows nothing: who has it may make a worker push.
impl fmt::Debug for SealedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedAddress").finish_non_exhaustive()
    }
}
