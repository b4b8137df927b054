//! The secrets that sign reply addresses and tickets.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The size of the hash. A shorter secret would be the weakest part.
const MIN_SECRET_BYTES: usize = 32;

/// Named secrets: one seals, all of them open.
///
/// To rotate the secret:
///
/// - Add the [new one](Self::with_old) to every function that opens addresses.
/// - Make it the sealing one.
/// - When the last address of the old one has expired, [retire](Self::with_retired) the old one.
///
/// # Examples
///
/// ```
/// use lambda_websocket::Keys;
///
/// # let (secret, last_years) = ([7; 32], [6; 32]);
/// let keys = Keys::new("2026", secret)?
///     .with_old("2025", last_years)?
///     .with_retired("2024");
/// # Ok::<(), lambda_websocket::InvalidKey>(())
/// ```
#[derive(Clone)]
pub struct Keys {
    current: String,
    secrets: BTreeMap<String, Option<Hmac<Sha256>>>,
}

/// A key has an invalid name or secret.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The secret is too short.
    #[error("the secret of the key {key_id:?} has {size} bytes: use at least 32 random bytes")]
    TooShort {
        /// The key's name.
        key_id: String,
        /// The size of the secret in bytes.
        size: usize,
    },
    /// The key's name is invalid.
    #[error("{key_id:?} is not a valid key name: expected 1 to 32 letters, digits, `_` or `-`")]
    KeyId {
        /// The invalid name.
        key_id: String,
    },
    /// Two keys have the same name.
    #[error("there are two keys with the name {key_id:?}: each key needs its own name")]
    Duplicate {
        /// The duplicate name.
        key_id: String,
    },
}

/// Same output as `Display`, because `main` prints the `Debug` form of an error that it returns.
impl fmt::Debug for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The state of a key's name.
pub(crate) enum Known<'a> {
    Key(&'a Hmac<Sha256>),
    Retired,
    Unknown,
}

impl Keys {
    /// Creates keys with a secret that seals and opens.
    ///
    /// # Errors
    ///
    /// [`InvalidKey::TooShort`] for a secret of less than 32 bytes, [`InvalidKey::KeyId`] for an
    /// invalid name.
    pub fn new(key_id: impl Into<String>, secret: impl AsRef<[u8]>) -> Result<Self, InvalidKey> {
        let key_id = key_id.into();
        Self { current: key_id.clone(), secrets: BTreeMap::new() }.with_old(key_id, secret)
    }

    /// Adds a secret that only opens.
    ///
    /// # Errors
    ///
    /// [`InvalidKey::Duplicate`] when another key has this name, including a retired one; otherwise
    /// as for [`new`](Self::new).
    pub fn with_old(mut self, key_id: impl Into<String>, secret: impl AsRef<[u8]>) -> Result<Self, InvalidKey> {
        let (key_id, secret) = (key_id.into(), secret.as_ref());
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if key_id.is_empty() || key_id.len() > 32 || !key_id.bytes().all(is_name) {
            return Err(InvalidKey::KeyId { key_id });
        }
        if self.secrets.contains_key(&key_id) {
            return Err(InvalidKey::Duplicate { key_id });
        }
        match Hmac::new_from_slice(secret) {
            Ok(key) if secret.len() >= MIN_SECRET_BYTES => {
                self.secrets.insert(key_id, Some(key));
                Ok(self)
            }
            _ => Err(InvalidKey::TooShort { key_id, size: secret.len() }),
        }
    }

    /// Retires a key by name: addresses and tickets that it has sealed are rejected.
    ///
    /// The current key cannot be retired; a call with its name does nothing.
    #[must_use]
    pub fn with_retired(mut self, key_id: impl Into<String>) -> Self {
        let key_id = key_id.into();
        if key_id != self.current {
            self.secrets.insert(key_id, None);
        }
        self
    }

    pub(crate) fn current(&self) -> &str {
        &self.current
    }

    pub(crate) fn find(&self, key_id: &str) -> Known<'_> {
        match self.secrets.get(key_id) {
            Some(Some(key)) => Known::Key(key),
            Some(None) => Known::Retired,
            None => Known::Unknown,
        }
    }

    /// Returns the current key's authentication code for a text.
    pub(crate) fn code(&self, text: &str) -> Vec<u8> {
        match self.find(&self.current) {
            Known::Key(key) => key.clone().chain_update(text).finalize().into_bytes().to_vec(),
            // The current key is always present.
            Known::Retired | Known::Unknown => Vec::new(),
        }
    }
}

/// Shows only the name of the current key.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("current", &self.current).finish_non_exhaustive()
    }
}
