//! The validated body of a message as an argument of a handler.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use garde::Validate;
use serde::de::DeserializeOwned;

use super::{EventKinds, FromEvent};
use crate::event::Event;
use crate::route::{Error, ErrorCode, Json, Result};

/// The body of a message, decoded from JSON and validated by [`garde`].
///
/// If validation fails, the client gets the error `invalid_message`. Its `details` list the
/// problems of each invalid member.
///
/// # Examples
///
/// ```
/// use garde::Validate;
/// use lambda_websocket::route::Valid;
/// use lambda_websocket::{Result, Router};
///
/// #[derive(serde::Deserialize, Validate)]
/// struct Words {
///     #[garde(length(chars, min = 1, max = 1000))]
///     text: String,
/// }
///
/// async fn say(Valid(words): Valid<Words>) -> Result<()> {
///     println!("{}", words.text);
///     Ok(())
/// }
///
/// let router = Router::new().on("say", say);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Valid<T>(pub T);

impl<T> Deref for Valid<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<S, T> FromEvent<S> for Valid<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate + Send + 'static,
    T::Context: Default,
{
    const EVENTS: EventKinds = EventKinds::MESSAGE;

    async fn from_event(event: &Event, state: &Arc<S>) -> Result<Self> {
        let Json(value) = Json::<T>::from_event(event, state).await?;
        let Err(report) = value.validate() else { return Ok(Self(value)) };
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, error) in report.iter() {
            members.entry(path.to_string()).or_default().push(error.to_string());
        }
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        let text = format!("not valid: {}", names.join(", "));
        Err(Error::client(ErrorCode::INVALID_MESSAGE, text).with_details(&members))
    }
}
