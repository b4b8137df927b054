//! Sends a text piece by piece to one connection, such as a language model's response.

mod buffer;
mod frame;
mod report;
mod run;

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use serde::Serialize;
use serde_json::value::RawValue;

pub use self::frame::StreamError;
pub use self::report::{StreamEnd, StreamReport};
use super::{MAX_PAYLOAD_BYTES, PushError, Pusher};
use crate::event::ConnectionId;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Source<'a, T> = Pin<Box<dyn Stream<Item = Result<T, BoxError>> + Send + 'a>>;

/// Long enough to gather tokens, and short enough that a reader does not notice it.
const MAX_LATENCY: Duration = Duration::from_millis(50);
/// API Gateway meters each message in units of 32 KB.
const MAX_FRAME_BYTES: usize = 32 * 1024;
const MIN_FRAME_BYTES: usize = 256;

impl Pusher {
    /// Streams the tokens of a language model, or other pieces of text, to one connection.
    ///
    /// The text arrives in numbered frames:
    ///
    /// ```json
    /// {"id": "L0SM9fXm", "seq": 0, "chunk": "The answer"}
    /// {"id": "L0SM9fXm", "seq": 1, "chunk": " is 42."}
    /// {"id": "L0SM9fXm", "seq": 2, "done": true}
    /// ```
    ///
    /// | member | meaning |
    /// |---|---|
    /// | `id` | the stream's [id](PendingStream::with_id), if it has one |
    /// | `seq` | the number of the frame in its stream, from 0 |
    /// | `chunk` | the next part of the text; may be absent from the last frame |
    /// | `done` | `true` in the last frame of a complete text, otherwise absent |
    /// | `error` | in the last frame of an incomplete text: `{"code": …, "message": …}` |
    ///
    /// A frame whose response was lost is sent again with the same number, so the client drops a
    /// frame whose `seq` it has seen:
    ///
    /// ```js
    /// if (frame.seq < next) return;
    /// next = frame.seq + 1;
    /// text += frame.chunk ?? "";
    /// ```
    ///
    /// # Frames and order
    ///
    /// One push is under way at a time, so frames arrive in order. The first token is sent at once.
    /// Tokens that arrive while a push is under way are gathered into the next frame, which is sent
    /// when it is [full](PendingStream::with_max_frame_bytes) or when its first token has waited for
    /// the [maximum latency](PendingStream::with_max_latency). A token that is larger than a frame is
    /// split between characters. The source is not polled while a full frame waits.
    ///
    /// # The end
    ///
    /// The stream ends, and drops its source, when
    ///
    /// - the source ends;
    /// - API Gateway returns 410, because the connection is gone;
    /// - a push fails after the retries that [`send`](Self::send) makes, each of which has the
    ///   timeouts of this pusher;
    /// - one second is left before the deadline of the Lambda invocation or the
    ///   [timeout](PendingStream::with_timeout) of the stream, or a quarter of the time if it is below
    ///   four seconds. The client receives the text so far, and the error code `timeout`. Without a
    ///   deadline and a timeout, as in a task that a route has spawned, the stream lasts up to a
    ///   day.
    ///
    /// The [`StreamReport`] says which of these it was.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the stream stops and drops its source. A frame that is under way
    /// may still arrive, and the client receives no last frame.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with its timer enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_util::stream;
    /// use lambda_websocket::Pusher;
    /// use lambda_websocket::event::ConnectionId;
    /// use lambda_websocket::push::Recorder;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let recorder = Recorder::new();
    /// let pusher = Pusher::new(recorder.clone());
    /// let connection_id = ConnectionId::new("L0SM9cOFvHcCIhw=")?;
    /// let tokens = stream::iter(["The", " answer", " is", " 42."]);
    /// let report = pusher.stream(&connection_id, tokens).with_id(&7).await;
    /// assert_eq!((report.tokens, report.bytes, report.is_success()), (4, 17, true));
    /// assert_eq!(
    ///     recorder.pushes()[0].text(),
    ///     r#"{"id":7,"seq":0,"chunk":"The answer is 42.","done":true}"#
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream<'a, T: AsRef<str> + 'a>(
        &self,
        connection_id: &ConnectionId,
        tokens: impl Stream<Item = T> + Send + 'a,
    ) -> PendingStream<'a, T> {
        self.try_stream(connection_id, tokens.map(Ok::<T, Infallible>))
    }

    /// Sends tokens as [`stream`](Self::stream) does, until the source returns an error.
    ///
    /// The client receives the tokens before the error, and then a frame with the code and the
    /// message of the error if it is a [`StreamError`]. For any other error it receives only the
    /// code `internal` with a fixed message. The error itself is in the [`StreamReport`].
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_util::stream;
    /// use lambda_websocket::Pusher;
    /// use lambda_websocket::event::ConnectionId;
    /// use lambda_websocket::push::{Recorder, StreamEnd, StreamError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let recorder = Recorder::new();
    /// let pusher = Pusher::new(recorder.clone());
    /// let tokens = stream::iter([Ok("The"), Err(StreamError::new("overloaded", "try again in a minute"))]);
    /// let report = pusher.try_stream(&ConnectionId::new("L0SM9cOFvHcCIhw=")?, tokens).await;
    /// assert!(matches!(report.end, StreamEnd::Source(_)));
    /// assert_eq!(
    ///     recorder.pushes()[1].text(),
    ///     r#"{"seq":1,"error":{"code":"overloaded","message":"try again in a minute"}}"#
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_stream<'a, T, E>(
        &self,
        connection_id: &ConnectionId,
        tokens: impl Stream<Item = Result<T, E>> + Send + 'a,
    ) -> PendingStream<'a, T>
    where
        T: AsRef<str> + 'a,
        E: Into<BoxError>,
    {
        PendingStream {
            pusher: self.clone(),
            connection_id: connection_id.clone(),
            source: Box::pin(tokens.map(|token| token.map_err(Into::into))),
            id: Ok(None),
            max_latency: MAX_LATENCY,
            max_frame_bytes: MAX_FRAME_BYTES,
            timeout: None,
            token: PhantomData,
        }
    }
}

/// A pending stream; `.await` it to send. Resolves to a [`StreamReport`].
///
/// See [`Pusher::stream`].
#[must_use = "nothing is sent unless it is awaited"]
pub struct PendingStream<'a, T> {
    pusher: Pusher,
    connection_id: ConnectionId,
    source: Source<'a, T>,
    id: Result<Option<Box<RawValue>>, PushError>,
    max_latency: Duration,
    max_frame_bytes: usize,
    timeout: Option<Duration>,
    /// Only the source owns tokens, so the future is `Send` even if they are not.
    token: PhantomData<fn() -> T>,
}

impl<T> PendingStream<'_, T> {
    /// Sets the id of each frame, such as the request's correlation id. Default: none.
    ///
    /// An id that fails to serialize as JSON, or leaves no room for text, ends the stream before
    /// anything is sent.
    pub fn with_id<I: Serialize + ?Sized>(mut self, id: &I) -> Self {
        self.id = serde_json::value::to_raw_value(id).map(Some).map_err(|source| PushError::NotJson { source });
        self
    }

    /// Sets how long a token waits for others while no push is under way. Default: 50 ms.
    ///
    /// With zero, each frame is sent as soon as the push of the previous one has completed.
    pub fn with_max_latency(mut self, latency: Duration) -> Self {
        self.max_latency = latency;
        self
    }

    /// Sets the maximum size of a frame, in bytes of JSON. Default: 32 KB.
    ///
    /// The range is 256 bytes to 128 KB. A frame always has room for 64 bytes of text, even if a
    /// long id makes it exceed the maximum.
    pub fn with_max_frame_bytes(mut self, bytes: usize) -> Self {
        self.max_frame_bytes = bytes.clamp(MIN_FRAME_BYTES, MAX_PAYLOAD_BYTES);
        self
    }

    /// Sets the timeout of the whole stream. Default: the deadline of the Lambda invocation, if
    /// any.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl<'a, T: AsRef<str> + 'a> IntoFuture for PendingStream<'a, T> {
    type Output = StreamReport;
    type IntoFuture = Pin<Box<dyn Future<Output = StreamReport> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<T> fmt::Debug for PendingStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingStream").field("connection_id", &self.connection_id).finish_non_exhaustive()
    }
}
