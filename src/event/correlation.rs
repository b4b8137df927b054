//! The id by which a client knows which of its requests a reply belongs to.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::{InvalidId, RequestId};

/// Names the request that a reply belongs to: a JSON string or a JSON number.
///
/// A client chooses it as the member `id` of its message, and gets it back as it has written it: `7` stays a number, `"7"` a
/// string, and `1e3` is not rewritten. Without one, replies from a queue carry the gateway's [request id](RequestId).
///
/// - As JSON it has at most [`MAX_BYTES`](Self::MAX_BYTES), the quotes of a string included.
/// - Two ids are equal if they are written in the same way.
///
/// An id that a client has chosen is a part of its message, so this crate does not log it.
///
/// # Examples
///
/// ```
/// use lambda_websocket::event::CorrelationId;
///
/// assert_eq!(CorrelationId::from_json("1e3")?.as_json(), "1e3");
/// assert_eq!(CorrelationId::new("question 1")?.as_json(), r#""question 1""#);
/// assert_ne!(CorrelationId::from(7), CorrelationId::new("7")?);
/// assert!(CorrelationId::from_json("true").is_err());
/// # Ok::<(), lambda_websocket::event::InvalidId>(())
/// ```
// The JSON, without white space around it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CorrelationId(SmolStr);

const KIND: &str = "correlation id";
const EXPECTED: &str = "a JSON string or number of at most 64 bytes";
/// The escaped form of a request id with 128 characters.
const MAX_OWN_BYTES: usize = 258;

impl CorrelationId {
    /// The maximum size of an id that a client chooses, in bytes of its JSON.
    pub const MAX_BYTES: usize = 64;

    /// Creates an id that is this text as a JSON string.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] when its JSON has more than 64 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
        let text = text.as_ref();
        let json = string(text);
        if json.len() > Self::MAX_BYTES {
            return Err(InvalidId::new(KIND, EXPECTED, text));
        }
        Ok(Self(json))
    }

    /// Creates an id of its JSON, which is kept as it is written.
    ///
    /// # Errors
    ///
    /// [`InvalidId`] when it is neither a string nor a number, or has more than 64 bytes.
    pub fn from_json(json: &str) -> Result<Self, InvalidId> {
        if json.len() > Self::MAX_BYTES || !is_string_or_number(json) {
            return Err(InvalidId::new(KIND, EXPECTED, json));
        }
        Ok(Self(json.into()))
    }

    /// The id as JSON, as it was written.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// What an address carried, which may be a request id with more than 64 bytes.
    #[cfg(feature = "reply")]
    pub(crate) fn from_address(json: &str) -> Option<Self> {
        (json.len() <= MAX_OWN_BYTES && is_string_or_number(json)).then(|| Self(json.into()))
    }
}

fn string(text: &str) -> SmolStr {
    // A text is always JSON.
    serde_json::to_string(text).unwrap_or_default().into()
}

fn is_string_or_number(json: &str) -> bool {
    let first = json.as_bytes().first();
    let last = json.as_bytes().last();
    // What follows the value would be white space.
    first.is_some_and(|first| *first == b'"' || *first == b'-' || first.is_ascii_digit())
        && last.is_some_and(|last| !last.is_ascii_whitespace())
        && serde_json::from_str::<&RawValue>(json).is_ok()
}

/// The gateway's id of a request as a JSON string.
impl From<&RequestId> for CorrelationId {
    fn from(request_id: &RequestId) -> Self {
        debug_assert!(request_id.as_str().len().saturating_mul(2).saturating_add(2) <= MAX_OWN_BYTES);
        Self(string(request_id.as_str()))
    }
}

impl From<u64> for CorrelationId {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

/// Writes the id as JSON.
impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CorrelationId({})", self.0)
    }
}

impl std::str::FromStr for CorrelationId {
    type Err = InvalidId;

    /// As [`CorrelationId::new`]: the text becomes a string.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

/// Writes the string or the number, through `serde_json` as it was written.
impl Serialize for CorrelationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Reads a string or a number. A number that is not an integer of 64 bits may be written differently afterwards.
impl<'de> Deserialize<'de> for CorrelationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrNumber;

        impl Visitor<'_> for StringOrNumber {
            type Value = CorrelationId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CorrelationId, E> {
                CorrelationId::new(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<CorrelationId, E> {
                Ok(number.into())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<CorrelationId, E> {
                CorrelationId::from_json(&number.to_string()).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<CorrelationId, E> {
                let json = serde_json::to_string(&number).map_err(E::custom)?;
                CorrelationId::from_json(&json).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(StringOrNumber)
    }
}
