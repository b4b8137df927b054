//! Nested values in the context, as JSON in a string.

use std::ops::Deref;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value passed through API Gateway as JSON in a string, such as a list of roles.
///
/// The authorizer and the routes use the same type. An authorizer's whole response has at most 8
/// KB.
///
/// # Examples
///
/// ```
/// use lambda_websocket::authorizer::{AsJson, Context};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Session { roles: AsJson<Vec<String>> }
///
/// // In the authorizer.
/// let session = Session { roles: AsJson(vec!["staff".to_owned(), "admin".to_owned()]) };
/// let context = Context::new(&session)?;
/// assert_eq!(serde_json::to_string(&context)?, r#"{"roles":"[\"staff\",\"admin\"]"}"#);
///
/// // In a route: `event.context::<Session>()?`, or the argument `AuthorizerContext<Session>`.
/// let read: Session = serde_json::from_value(serde_json::to_value(&context)?)?;
/// assert_eq!(read, session);
/// assert!(read.roles.contains(&"admin".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsJson<T>(pub T);

impl<T> Deref for AsJson<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Serialize> Serialize for AsJson<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&serde_json::to_string(&self.0).map_err(S::Error::custom)?)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for AsJson<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map(Self).map_err(D::Error::custom)
    }
}
