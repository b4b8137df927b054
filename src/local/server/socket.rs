//! One WebSocket: reads and writes frames until either side closes it.

use std::collections::VecDeque;
use std::future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use super::super::rules::Input;
use super::deflate::{Deflate, Inflater};
use super::head::Tap;
use super::outbox::{Close, Next, Outbox};
use super::{Link, Shared};
use crate::event::ConnectionId;
use crate::quotas::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES};

/// How long a client may read nothing while frames are sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the gateway checks whether the client reads.
const LOOK: Duration = Duration::from_millis(500);
/// The timeout of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Stream = WebSocketStream<Progress>;

pub(super) async fn run(
    shared: Arc<Shared>,
    connection: ConnectionId,
    upgraded: OnUpgrade,
    deflate: Option<Deflate>,
    link: Link,
) {
    let Some(mut stream) = open(upgraded, deflate.is_some()).await else {
        shared.step(Input::NeverOpened { connection: &connection });
        return;
    };
    // After a frame that violates the protocol, the rest cannot be interpreted.
    let mut readable = true;
    loop {
        let may_sleep = match link.outbox.next() {
            Next::Send(frames) => match send(&mut stream, frames, deflate, &link.outbox).await {
                Ok(()) => false,
                Err(_) => return ended(&shared, &connection, 1006, ""),
            },
            // The rules have removed the connection.
            Next::Close(close) => return finish(&mut stream, close, readable).await,
            Next::Sleep => true,
        };
        // Reads from the client after every batch, so that pushes do not starve its messages.
        let mut waited = false;
        let next = future::poll_fn(|cx| {
            let next = stream.poll_next_unpin(cx);
            waited |= next.is_pending();
            next
        });
        let frame = tokio::select! {
            biased;
            frame = next, if readable => frame,
            () = link.outbox.woken(), if may_sleep => continue,
            () = future::ready(()), if !may_sleep => continue,
        };
        link.outbox.wake_up();
        // A client that sends without pause takes turns with the others, message by message.
        if !waited {
            yield_now().await;
        }
        match frame {
            Some(Ok(Frame::Text(text))) => {
                shared.step(Input::Message { connection: &connection, text: &text });
            }
            // LIM-2
            Some(Ok(Frame::Binary(_))) => violation(&shared, &connection, 1003, "Unsupported data"),
            // LIM-4: tungstenite replies to a ping.
            Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
            Some(Ok(Frame::Close(close))) => {
                // EVT-15
                match &close {
                    Some(CloseFrame { code, reason }) => ended(&shared, &connection, u16::from(*code), reason),
                    None => ended(&shared, &connection, 1005, "Client-side close frame status not set"),
                }
                return drain(&mut stream).await;
            }
            Some(Err(error)) => match broken_rule(&error) {
                Some((code, reason)) => {
                    readable = false;
                    violation(&shared, &connection, code, reason);
                }
                None => return ended(&shared, &connection, 1006, ""),
            },
            None => return ended(&shared, &connection, 1006, ""),
        }
    }
}

/// Takes the socket over from hyper, and releases hyper's buffers.
async fn open(upgraded: OnUpgrade, is_compressed: bool) -> Option<Stream> {
    let Parts { io, read_buf, .. } = upgraded.await.ok()?.downcast::<TokioIo<Tap>>().ok()?;
    // The default read buffer would cost 128 KB for every idle connection.
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_frame_size(Some(MAX_FRAME_BYTES))
        .max_message_size(Some(MAX_MESSAGE_BYTES));
    let (socket, unread) = (io.into_inner().into_inner(), read_buf.to_vec());
    drop(read_buf);
    let mut inflater = is_compressed.then(Box::<Inflater>::default);
    let unread = match &mut inflater {
        Some(inflater) => {
            inflater.take(&unread);
            Vec::new()
        }
        None => unread,
    };
    let socket = Progress { socket, written: Written::default(), inflater };
    Some(WebSocketStream::from_partially_read(socket, unread, Role::Server, Some(config)).await)
}

/// Sends frames with one flush, as long as the client keeps reading.
async fn send(
    stream: &mut Stream,
    frames: VecDeque<String>,
    deflate: Option<Deflate>,
    outbox: &Outbox,
) -> Result<(), Error> {
    let written = Arc::clone(&stream.get_ref().written);
    let sending = async {
        for text in frames {
            let message = match deflate {
                Some(deflate) => deflate.message(text),
                None => Frame::text(text),
            };
            stream.feed(message).await?;
        }
        stream.flush().await
    };
    let mut sending = pin!(sending);
    if let Some(sent) = (&mut sending).now_or_never() {
        return sent;
    }
    let (mut before, mut stands_still) = (written.load(Ordering::Relaxed), Duration::ZERO);
    loop {
        if let Ok(sent) = timeout(LOOK, &mut sending).await {
            return sent;
        }
        let now = written.load(Ordering::Relaxed);
        stands_still = if now == before { stands_still.saturating_add(LOOK) } else { Duration::ZERO };
        before = now;
        let limit = if outbox.is_closing() { CLOSE_TIMEOUT } else { WRITE_TIMEOUT };
        if stands_still >= limit {
            return Err(Error::ConnectionClosed);
        }
    }
}

/// The number of bytes that the client has taken.
type Written = Arc<AtomicUsize>;

/// A socket that counts written bytes and inflates received ones.
struct Progress {
    socket: TcpStream,
    written: Written,
    /// Present only with compression.
    inflater: Option<Box<Inflater>>,
}

impl AsyncRead for Progress {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, inflater, .. } = &mut *self;
        let mut socket = Pin::new(socket);
        let Some(inflater) = inflater else { return socket.poll_read(cx, buffer) };
        loop {
            let given = inflater.give(buffer.remaining())?;
            if !given.is_empty() {
                buffer.put_slice(&given);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(socket.as_mut().poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            inflater.take(read.filled());
        }
    }
}

impl AsyncWrite for Progress {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.written.fetch_add(count, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Returns the close code for an invalid frame, or `None` if the socket failed.
fn broken_rule(error: &Error) -> Option<(u16, &'static str)> {
    match error {
        // LIM-1
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some((1009, "Message too big")),
        Error::Utf8(_) => Some((1007, "Invalid frame payload data")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some((1002, "Protocol error")),
        // The compressed data is invalid: RFC 7692 leaves the code open.
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Some((1007, "Invalid frame payload data")),
        Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Some((1009, "Message too big")),
        _ => None,
    }
}

/// Reports a violation: the rules close the connection, and the loop finds its outbox closed.
fn violation(shared: &Arc<Shared>, connection: &ConnectionId, code: u16, reason: &'static str) {
    shared.step(Input::Violation { connection, code, reason });
}

fn ended(shared: &Arc<Shared>, connection: &ConnectionId, code: u16, reason: &str) {
    let socket = shared.lock().sockets.remove(connection);
    drop(socket);
    shared.step(Input::Closed { connection, code, reason });
}

async fn finish(stream: &mut Stream, Close { code, reason }: Close, readable: bool) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    let _ = timeout(CLOSE_TIMEOUT, stream.send(Frame::Close(Some(frame)))).await;
    if readable {
        return drain(stream).await;
    }
    // Unread data would make the system reset the connection, and the client would lose the close
    // frame.
    let socket = stream.get_mut();
    // The rest is not parsed: it may be data that could not be inflated.
    socket.inflater = None;
    let swallow = async {
        let mut buffer = vec![0; 4096];
        socket.shutdown().await?;
        while socket.read(&mut buffer).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, swallow).await;
}

/// Reads until the client has replied to the close frame.
///
/// The client thus receives the gateway's close frame before the socket is dropped.
async fn drain(stream: &mut Stream) {
    let answered = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = timeout(CLOSE_TIMEOUT, answered).await;
}
