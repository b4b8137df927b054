//! The identifiers of a WebSocket API: validated strings that are cheap to clone.
//!
//! API Gateway's own ids are short enough to be stored inline, without an allocation.

use std::fmt;

/// The string is not a valid identifier of its kind.
///
/// Its `Display` quotes the string, which helps when configuring a program. If a route returns this
/// error, the message is rejected: the client gets the `Display` text, while the log omits the
/// string.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {found:?} is not valid: expected {expected}")]
pub struct InvalidId {
    kind: &'static str,
    expected: &'static str,
    found: String,
}

impl InvalidId {
    pub(crate) fn new(kind: &'static str, expected: &'static str, found: &str) -> Self {
        // A long string must not flood the log.
        const SHOWN: usize = 80;
        let mut shown: String = found.chars().take(SHOWN).collect();
        if shown.len() < found.len() {
            shown.push('…');
        }
        Self { kind, expected, found: shown }
    }

    /// Returns the kind of identifier that was expected, such as `connection id`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the error text without the string.
    pub(crate) fn unquoted(&self) -> String {
        format!("{} is not valid: expected {}", self.kind, self.expected)
    }
}

/// Omits the string, which may be a client's.
impl fmt::Debug for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidId({})", self.unquoted())
    }
}

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $expected:literal, $is_valid:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(::smol_str::SmolStr);

        impl $name {
            /// Validates the string and creates the identifier.
            ///
            /// # Errors
            ///
            /// [`InvalidId`](crate::event::InvalidId) if the string is not a valid identifier of
            /// this kind.
            pub fn new(text: impl AsRef<str>) -> Result<Self, $crate::event::InvalidId> {
                let text = text.as_ref();
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    Ok(Self(::smol_str::SmolStr::new(text)))
                } else {
                    Err($crate::event::InvalidId::new($kind, $expected, text))
                }
            }

            /// Returns the identifier as a string slice.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::event::InvalidId;

            fn from_str(text: &str) -> Result<Self, $crate::event::InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::event::InvalidId;

            fn try_from(text: &str) -> Result<Self, $crate::event::InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::event::InvalidId;

            fn try_from(text: String) -> Result<Self, $crate::event::InvalidId> {
                Self::new(text)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'_, str> as ::serde::Deserialize>::deserialize(deserializer)?;
                Self::new(text).map_err(::serde::de::Error::custom)
            }
        }
    };
}

#[cfg(feature = "registry")]
pub(crate) use identifier;

pub(crate) fn within(text: &str, longest: usize, legal: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(legal)
}

fn is_opaque(text: &str) -> bool {
    within(text, 128, |byte| byte.is_ascii_graphic())
}

identifier! {
    /// Identifies an open connection: 1 to 128 visible ASCII characters, otherwise opaque.
    ///
    /// API Gateway generates ids of 16 characters, such as `L0SM9cOFvHcCIhw=`. They contain `=`,
    /// `-` and `_`, so an id is percent-encoded when it becomes part of a URL. `.` and `..` are
    /// rejected, because they would change the path there.
    ConnectionId,
    "connection id",
    "1 to 128 visible ASCII characters, not `.` or `..`",
    |text| is_opaque(text) && !matches!(text, "." | "..")
}

identifier! {
    /// Identifies a message of a client: 1 to 128 visible ASCII characters, otherwise opaque.
    MessageId, "message id", "1 to 128 visible ASCII characters", is_opaque
}

identifier! {
    /// Identifies a request to API Gateway: 1 to 128 visible ASCII characters.
    ///
    /// The access logs of the API show the same id.
    RequestId, "request id", "1 to 128 visible ASCII characters", is_opaque
}

identifier! {
    /// Identifies an API: 1 to 63 letters, digits or `-`.
    ///
    /// It is the first label of the API's host.
    ApiId, "API id", "1 to 63 letters, digits or `-`",
    |text| within(text, 63, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

identifier! {
    /// The name of a stage of an API: 1 to 128 of `A-Z a-z 0-9 _ -`.
    ///
    /// See the [quotas](https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html)
    /// for stages.
    Stage, "stage", "1 to 128 letters, digits, `_` or `-`",
    |text| within(text, 128, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

identifier! {
    /// The name of an AWS Region, such as `eu-central-1`.
    ///
    /// It has 1 to 63 lowercase letters, digits or `-`.
    Region, "region", "1 to 63 lower-case letters, digits or `-`, such as `eu-central-1`",
    |text| within(text, 63, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

identifier! {
    /// Selects a route: `$connect`, `$disconnect`, `$default`, or a custom key without a leading
    /// `$`.
    ///
    /// API Gateway gets a custom key by evaluating the API's route selection expression for a
    /// message. It is usually the value of the `action` member. It has 1 to 128 bytes, none of them
    /// a control character, and is compared exactly.
    ///
    /// See
    /// [routes](https://docs.aws.amazon.com/apigateway/latest/developerguide/websocket-api-develop-routes.html).
    RouteKey, "route key",
    "`$connect`, `$disconnect`, `$default`, or 1 to 128 bytes that do not start with `$`",
    is_route_key
}

fn is_route_key(text: &str) -> bool {
    match text.strip_prefix('$') {
        Some(rest) => matches!(rest, "connect" | "disconnect" | "default"),
        None => within(text, 128, |byte| !byte.is_ascii_control()),
    }
}

impl RouteKey {
    /// The key of the route that a new connection selects.
    pub const CONNECT: &'static str = "$connect";
    /// The key of the route that a closed connection selects.
    pub const DISCONNECT: &'static str = "$disconnect";
    /// The key of the route for messages that match no other route.
    pub const DEFAULT: &'static str = "$default";
}

/// Allows lookup of a route by `&str`.
impl std::borrow::Borrow<str> for RouteKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}
