//! What is sent to one connection or to many.

use std::fmt;
#[cfg(feature = "direct")]
use std::sync::OnceLock;

use bytes::Bytes;
use serde::Serialize;

use super::PushError;

/// The largest payload of one push, in bytes.
///
/// See the [quotas](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html).
pub const MAX_PAYLOAD_BYTES: usize = 131_072;

/// The bytes of a push: at most [`MAX_PAYLOAD_BYTES`], and UTF-8, since they arrive as a text frame.
///
/// What signs requests hashes a payload once, however many connections it goes to.
pub struct Payload {
    bytes: Bytes,
    #[cfg(feature = "direct")]
    sha256: OnceLock<String>,
}

impl Payload {
    /// A payload of these bytes.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`].
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

    /// A payload of this value as JSON.
    ///
    /// # Errors
    ///
    /// [`PushError::NotJson`] and [`PushError::TooLarge`].
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, PushError> {
        Self::new(serde_json::to_vec(value).map_err(|source| PushError::NotJson { source })?)
    }

    /// The bytes. A clone of them is cheap.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    #[cfg(feature = "direct")]
    pub(super) fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| sha256_hex(&self.bytes))
    }
}

/// Lower-case hexadecimal, as signatures want it.
#[cfg(feature = "direct")]
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let mut text = [0; 64];
    // The lengths fit, and hexadecimal is text, so that nothing is lost here.
    let _ = hex::encode_to_slice(sha2::Sha256::digest(bytes), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Leaves out the bytes, which are a client's.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("size", &self.bytes.len()).finish_non_exhaustive()
    }
}
