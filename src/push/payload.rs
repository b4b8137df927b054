//! The payload of a push.

use std::fmt;
#[cfg(feature = "direct")]
use std::sync::OnceLock;

use bytes::Bytes;
use serde::Serialize;

use super::PushError;
use crate::quotas::MAX_MESSAGE_BYTES;

/// The maximum size of a payload in bytes.
///
/// See the
/// [quotas](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html).
pub const MAX_PAYLOAD_BYTES: usize = MAX_MESSAGE_BYTES;

/// The payload of a push: at most [`MAX_PAYLOAD_BYTES`] bytes.
///
/// It should be UTF-8, because it arrives as a text frame. Its hash for signatures is computed
/// once, however many connections it goes to.
pub struct Payload {
    bytes: Bytes,
    #[cfg(feature = "direct")]
    sha256: OnceLock<String>,
}

impl Payload {
    /// Creates a payload from bytes.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`] for more than [`MAX_PAYLOAD_BYTES`] bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, PushError> {
        let bytes = bytes.into();
        if bytes.len() > MAX_PAYLOAD_BYTES {
            return Err(PushError::TooLarge { size: bytes.len() });
        }
        Ok(Self {
            bytes,
            #[cfg(feature = "direct")]
            sha256: OnceLock::new(),
        })
    }

    /// Creates a payload by serializing a value as JSON.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] when the value fails to serialize, [`PushError::TooLarge`] when the
    /// JSON has more than [`MAX_PAYLOAD_BYTES`] bytes.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, PushError> {
        Self::new(serde_json::to_vec(value).map_err(|source| PushError::NotJson { source })?)
    }

    /// Returns the bytes, which are cheap to clone.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    #[cfg(feature = "direct")]
    pub(super) fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| sha256_hex(&self.bytes))
    }
}

/// Returns the hash in lower-case hexadecimal, as signatures require it.
#[cfg(feature = "direct")]
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let mut text = [0; 64];
    // The lengths match and hexadecimal is ASCII, so neither call loses data.
    let _ = hex::encode_to_slice(sha2::Sha256::digest(bytes), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Leaves out the bytes, which may be a client's data.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("size", &self.bytes.len()).finish_non_exhaustive()
    }
}
