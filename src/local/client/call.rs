//! Requests with an id, and their replies.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::{Client, ClientError, unexpected};

/// An error returned by [`Client::call`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The reply is an error.
    #[error("{code}: {message}")]
    Refused {
        /// The error code, such as `invalid_message`.
        code: String,
        /// The human-readable message.
        message: String,
        /// The details of the error, if there are any.
        details: Option<Value>,
    },
    /// No reply came, or it could not be used.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl CallError {
    /// Returns the code of the error reply, if there is one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Client(_) => None,
        }
    }
}

impl Client {
    /// Sends a request with an id and waits for its result.
    ///
    /// The request and its reply follow the [reply protocol](crate::route#the-reply-protocol). The
    /// body is an object, to which the client adds `action` and `id`, or `&()`. Other frames that
    /// come meanwhile, including progress, are kept for the next call that waits for a frame.
    ///
    /// # Errors
    ///
    /// [`CallError::Refused`] if the reply is an error, and [`CallError::Client`] if the body is
    /// not an object, no reply comes, or the result is not a `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::local::Gateway;
    /// use lambda_websocket::{Json, Message, Router};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Add { left: i32, right: i32 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let router = Router::new().on("add", |event: Message<Add>| async move {
    ///     Ok(Json(event.body.left + event.body.right))
    /// });
    /// let gateway =
    ///     Gateway::builder("dev").router(router).route_response("add").start().await?;
    /// let mut client = gateway.connect("").await?;
    /// let sum: i32 = client.call("add", &serde_json::json!({"left": 2, "right": 3})).await?;
    /// assert_eq!(sum, 5);
    /// let incomplete = serde_json::json!({"left": 2});
    /// let error = client.call::<i32>("add", &incomplete).await.unwrap_err();
    /// assert_eq!(error.code(), Some("invalid_message"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        action: &str,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<T, CallError> {
        self.calls = self.calls.wrapping_add(1);
        let id = Value::from(self.calls);
        let mut request = match serde_json::to_value(body).map_err(|error| ClientError::Socket(Box::new(error)))? {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            other => {
                return Err(ClientError::Unexpected { found: other.to_string(), awaited: "an object to send" }.into());
            }
        };
        request.insert("action".to_owned(), action.into());
        request.insert("id".to_owned(), id.clone());
        self.send_json(&request).await?;
        let is_final = |frame: &Value| {
            frame.get("id") == Some(&id) && (frame.get("result").is_some() || frame.get("error").is_some())
        };
        let mut reply = self.next_matching(is_final).await?;
        if let Some(error) = reply.get_mut("error") {
            let mut text = |member| match error.get_mut(member).map(Value::take) {
                Some(Value::String(text)) => text,
                other => other.unwrap_or_default().to_string(),
            };
            let (code, message) = (text("code"), text("message"));
            return Err(CallError::Refused { code, message, details: error.get_mut("details").map(Value::take) });
        }
        let result = reply.get_mut("result").map(Value::take).unwrap_or_default();
        let found = result.to_string();
        serde_json::from_value(result).map_err(|error| {
            let found = format!("the result {found} ({error})");
            ClientError::Unexpected { found, awaited: "a result of the requested type" }.into()
        })
    }

    /// Waits for a text frame and deserializes its JSON.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if another frame comes or the text is not a `T`,
    /// [`ClientError::TimedOut`] if none comes in time, [`ClientError::Closed`] if the connection
    /// closes, and [`ClientError::Socket`] if the socket fails.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let text = self.next_text().await?;
        serde_json::from_str(&text).map_err(|error| ClientError::Unexpected {
            found: format!("the text frame {text:?} ({error})"),
            awaited: "JSON of the requested type",
        })
    }

    /// Waits for a JSON frame that satisfies a condition.
    ///
    /// Other text frames are kept for the next call that waits for one.
    ///
    /// # Errors
    ///
    /// [`ClientError::TimedOut`] if no such frame comes in time, [`ClientError::Unexpected`] if a
    /// frame comes that is not text, [`ClientError::Closed`] if the connection closes, and
    /// [`ClientError::Socket`] if the socket fails.
    pub async fn next_matching(&mut self, condition: impl Fn(&Value) -> bool) -> Result<Value, ClientError> {
        const AWAITED: &str = "a JSON frame that satisfies the condition";
        let fits = |text: &str| serde_json::from_str(text).ok().filter(|value| condition(value));
        if let Some((index, value)) = self.kept.iter().enumerate().find_map(|(at, text)| Some((at, fits(text)?))) {
            self.kept.remove(index);
            return Ok(value);
        }
        // Frames that do not match must not extend the timeout.
        let until = Instant::now().checked_add(self.timeout);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match self.frame(AWAITED, left.unwrap_or(self.timeout)).await? {
                Frame::Text(text) => match fits(text.as_str()) {
                    Some(value) => return Ok(value),
                    None => self.kept.push_back(text.as_str().to_owned()),
                },
                other => return Err(unexpected(&other, AWAITED)),
            }
        }
    }

    /// Waits for this long, and fails if a frame comes.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if a frame comes or was kept, [`ClientError::Closed`] if the
    /// connection closes, and [`ClientError::Socket`] if the socket fails.
    pub async fn expect_silence(&mut self, duration: Duration) -> Result<(), ClientError> {
        const AWAITED: &str = "silence";
        if let Some(text) = self.kept.front() {
            return Err(ClientError::Unexpected { found: format!("the text frame {text:?}"), awaited: AWAITED });
        }
        // The duration limits the wait, so the frame itself gets a longer timeout.
        let longer = duration.saturating_add(self.timeout);
        match timeout(duration, self.frame(AWAITED, longer)).await {
            Err(_) => Ok(()),
            Ok(Ok(frame)) => Err(unexpected(&frame, AWAITED)),
            Ok(Err(error)) => Err(error),
        }
    }
}
