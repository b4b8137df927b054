//! A WebSocket client for tests.

mod call;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

pub use self::call::CallError;
use super::timeline::Timeline;
use crate::event::ConnectionId;

/// A WebSocket client for tests.
///
/// Methods that wait give up after five seconds by default, and report what they waited for.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    subprotocol: Option<String>,
    timeout: Duration,
    /// The gateway's timeline, which explains timeouts.
    timeline: Timeline,
    connection_id: Option<ConnectionId>,
    /// Frames that came before the one that a method waited for.
    kept: VecDeque<String>,
    /// The number of calls so far, which are numbered.
    calls: u64,
}

/// An error returned by a [`Client`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The gateway refused the handshake with a status other than 101.
    #[error("the handshake was refused with {status}: {body}")]
    Refused {
        /// The HTTP status of the response.
        status: StatusCode,
        /// The value of the `x-amzn-ErrorType` header.
        error_type: Option<String>,
        /// The body of the response.
        body: String,
    },
    /// The connection was closed while the test waited for something.
    #[error("the connection was closed with {code} {reason:?}, while waiting for {awaited}")]
    Closed {
        /// The close code; 1006 when there was no close frame.
        code: u16,
        /// The close reason.
        reason: String,
        /// What the test waited for.
        awaited: &'static str,
    },
    /// Nothing came before the timeout.
    #[error("timed out after {} ms while waiting for {awaited}{}", .timeout.as_millis(), shown(.happened))]
    TimedOut {
        /// What the test waited for.
        awaited: &'static str,
        /// The timeout.
        timeout: Duration,
        /// The last entries about the connection in the gateway's
        /// [timeline](super::Gateway::timeline).
        happened: Vec<String>,
    },
    /// Something came that the test did not wait for.
    #[error("expected {awaited}, found {found}")]
    Unexpected {
        /// A description of what came.
        found: String,
        /// What the test waited for.
        awaited: &'static str,
    },
    /// The socket failed, or a value or header could not be sent.
    #[error("the socket failed")]
    Socket(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// Returns the status with which the gateway refused the handshake.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }
}

// No `From`: the WebSocket library is no part of the public API.
fn failed(error: Error) -> ClientError {
    match error {
        Error::Http(response) => ClientError::Refused {
            status: response.status(),
            error_type: response
                .headers()
                .get("x-amzn-errortype")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
        },
        other => ClientError::Socket(Box::new(other)),
    }
}

impl Client {
    const TIMEOUT: Duration = Duration::from_secs(5);

    pub(super) async fn connect(
        address: SocketAddr,
        url: &str,
        headers: &[(&str, &str)],
        timeline: Timeline,
    ) -> Result<Self, ClientError> {
        let mut request = url.into_client_request().map_err(failed)?;
        for (name, value) in headers {
            let socket = |error: http::Error| ClientError::Socket(Box::new(error));
            let name = HeaderName::try_from(*name).map_err(|error| socket(error.into()))?;
            let value = HeaderValue::try_from(*value).map_err(|error| socket(error.into()))?;
            request.headers_mut().append(name, value);
        }
        // A handshake takes as long as the authorizer and `$connect`, which may be 29 seconds each.
        let timeout = Duration::from_secs(60);
        let connecting = async {
            let stream = TcpStream::connect(address).await.map_err(|error| ClientError::Socket(Box::new(error)))?;
            tokio_tungstenite::client_async(request, stream).await.map_err(failed)
        };
        let (socket, response) = time::timeout(timeout, connecting).await.map_err(|_| ClientError::TimedOut {
            awaited: "the response to the handshake",
            timeout,
            happened: Vec::new(),
        })??;
        let subprotocol =
            response.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let address = socket.get_ref().local_addr().ok();
        let connection_id = address.and_then(|address| timeline.connection_of(address));
        Ok(Self {
            socket,
            subprotocol,
            timeout: Self::TIMEOUT,
            timeline,
            connection_id,
            kept: VecDeque::new(),
            calls: 0,
        })
    }

    /// Sets the timeout. Default: five seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the selected subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Sends a value as JSON in a text frame.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] if the value fails to serialize as JSON or the socket fails, and
    /// [`ClientError::TimedOut`] if the frame is not sent in time.
    pub async fn send_json(&mut self, value: &(impl Serialize + Sync + ?Sized)) -> Result<(), ClientError> {
        let text = serde_json::to_string(value).map_err(|error| ClientError::Socket(Box::new(error)))?;
        self.send_text(text).await
    }

    /// Sends a text frame.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] if the socket fails, and [`ClientError::TimedOut`] if the frame is
    /// not sent in time.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<(), ClientError> {
        self.send(Frame::text(text.into())).await
    }

    /// Sends a binary frame, which API Gateway does not support.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] if the socket fails, and [`ClientError::TimedOut`] if the frame is
    /// not sent in time.
    pub async fn send_binary(&mut self, bytes: impl Into<Vec<u8>>) -> Result<(), ClientError> {
        self.send(Frame::binary(bytes.into())).await
    }

    async fn send(&mut self, frame: Frame) -> Result<(), ClientError> {
        let timeout = self.timeout;
        let sent = time::timeout(timeout, self.socket.send(frame)).await;
        sent.map_err(|_| self.timed_out("a frame to be sent"))?.map_err(failed)
    }

    /// Waits for a text frame, or returns one that was kept.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if another frame comes, [`ClientError::TimedOut`] if none comes
    /// in time, [`ClientError::Closed`] if the connection closes, and [`ClientError::Socket`] if
    /// the socket fails.
    pub async fn next_text(&mut self) -> Result<String, ClientError> {
        const AWAITED: &str = "a text frame";
        if let Some(text) = self.kept.pop_front() {
            return Ok(text);
        }
        match self.frame(AWAITED, self.timeout).await? {
            Frame::Text(text) => Ok(text.as_str().to_owned()),
            other => Err(unexpected(&other, AWAITED)),
        }
    }

    /// Waits for a text frame and parses it as JSON.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if another frame comes or the text is not JSON,
    /// [`ClientError::TimedOut`] if none comes in time, [`ClientError::Closed`] if the connection
    /// closes, and [`ClientError::Socket`] if the socket fails.
    pub async fn next_json(&mut self) -> Result<Value, ClientError> {
        let text = self.next_text().await?;
        serde_json::from_str(&text)
            .map_err(|_| ClientError::Unexpected { found: format!("the text frame {text:?}"), awaited: "JSON" })
    }

    /// Waits until the connection is closed, and returns the close code and reason.
    ///
    /// The code is 1005 if the close frame has none, and 1006 if there is no close frame.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if a data frame comes, [`ClientError::TimedOut`] if the
    /// connection is not closed in time, and [`ClientError::Socket`] if the socket fails.
    pub async fn closed(&mut self) -> Result<(u16, String), ClientError> {
        const AWAITED: &str = "the connection to be closed";
        match self.frame(AWAITED, self.timeout).await {
            Err(ClientError::Closed { code, reason, .. }) => Ok((code, reason)),
            Err(error) => Err(error),
            Ok(frame) => Err(unexpected(&frame, AWAITED)),
        }
    }

    /// Closes the connection with a code and a reason, and waits for the gateway's close frame.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if a data frame comes, [`ClientError::TimedOut`] if the gateway
    /// does not reply in time, and [`ClientError::Socket`] if the socket fails.
    pub async fn close(mut self, code: u16, reason: &str) -> Result<(), ClientError> {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.send(Frame::Close(Some(frame))).await?;
        self.closed().await.map(drop)
    }

    fn timed_out(&self, awaited: &'static str) -> ClientError {
        /// The number of entries that explain the outcome of one message.
        const LAST: usize = 4;
        let entries = self.connection_id.as_ref().map(|id| self.timeline.of(id)).unwrap_or_default();
        let last = entries.iter().skip(entries.len().saturating_sub(LAST));
        let happened = last.map(|entry| entry.kind.to_string()).collect();
        ClientError::TimedOut { awaited, timeout: self.timeout, happened }
    }

    async fn frame(&mut self, awaited: &'static str, timeout: Duration) -> Result<Frame, ClientError> {
        let closed = |code, reason: String| ClientError::Closed { code, reason, awaited };
        loop {
            let frame = time::timeout(timeout, self.socket.next()).await.map_err(|_| self.timed_out(awaited))?;
            return match frame {
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                Some(Ok(Frame::Close(Some(CloseFrame { code, reason })))) => {
                    Err(closed(code.into(), reason.as_str().to_owned()))
                }
                Some(Ok(Frame::Close(None))) => Err(closed(1005, String::new())),
                Some(Ok(frame)) => Ok(frame),
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => Err(closed(1006, String::new())),
                Some(Err(error)) => Err(failed(error)),
            };
        }
    }
}

fn shown(happened: &[String]) -> String {
    match happened.is_empty() {
        true => String::new(),
        false => format!("; last timeline entries: {}", happened.join("; ")),
    }
}

fn unexpected(frame: &Frame, awaited: &'static str) -> ClientError {
    let found = match frame {
        Frame::Text(text) => format!("the text frame {:?}", text.as_str()),
        Frame::Binary(bytes) => format!("a binary frame of {} bytes", bytes.len()),
        _ => "a control frame".to_owned(),
    };
    ClientError::Unexpected { found, awaited }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("subprotocol", &self.subprotocol).finish_non_exhaustive()
    }
}
