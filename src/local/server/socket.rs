//! One WebSocket: frames in and out, until somebody closes it.

use std::collections::VecDeque;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use super::head::Tap;
use super::outbox::{Goodbye, Next};
use super::{Link, Shared};
use crate::event::ConnectionId;

/// LIM-1
const LARGEST_FRAME: usize = 32 * 1024;
const LARGEST_MESSAGE: usize = 128 * 1024;
/// How long a frame may take to leave for a client that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closed socket may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Stream = WebSocketStream<TcpStream>;

pub(super) async fn run(shared: Arc<Shared>, connection: ConnectionId, upgraded: OnUpgrade, link: Link) {
    let Some(mut stream) = open(upgraded).await else {
        return shared.step(|machine, now| machine.never_opened(now, &connection));
    };
    // After a frame that breaks the protocol nothing more can be made of what the client sends.
    let mut readable = true;
    loop {
        let may_sleep = match link.outbox.next() {
            Next::Send(frames) => match timeout(WRITE_TIMEOUT, send(&mut stream, frames)).await {
                Ok(Ok(())) => false,
                Ok(Err(_)) | Err(_) => return ended(&shared, &connection, 1006, ""),
            },
            // The rules have let the connection go.
            Next::Close(goodbye) => return say_goodbye(&mut stream, goodbye, readable).await,
            Next::Sleep => true,
        };
        // What the client sends is looked at after every batch, so that pushes do not drown it.
        let frame = tokio::select! {
            biased;
            frame = stream.next(), if readable => frame,
            () = link.outbox.woken(), if may_sleep => continue,
            () = ready(()), if !may_sleep => continue,
        };
        link.outbox.wake_up();
        match frame {
            Some(Ok(Frame::Text(text))) => shared.step(|machine, now| machine.message(now, &connection, &text)),
            // LIM-2
            Some(Ok(Frame::Binary(_))) => violation(&shared, &connection, 1003, "Unsupported data"),
            // LIM-4: the library answers a ping.
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

/// Takes the socket over from hyper, whose buffers are let go here.
async fn open(upgraded: OnUpgrade) -> Option<Stream> {
    let Parts { io, read_buf, .. } = upgraded.await.ok()?.downcast::<TokioIo<Tap>>().ok()?;
    // The default read buffer would cost 128 KB for every idle connection.
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_frame_size(Some(LARGEST_FRAME))
        .max_message_size(Some(LARGEST_MESSAGE));
    let (socket, unread) = (io.into_inner().into_inner(), read_buf.to_vec());
    drop(read_buf);
    Some(WebSocketStream::from_partially_read(socket, unread, Role::Server, Some(config)).await)
}

/// Sends what waits with one flush.
async fn send(stream: &mut Stream, frames: VecDeque<String>) -> Result<(), Error> {
    for text in frames {
        stream.feed(Frame::text(text)).await?;
    }
    stream.flush().await
}

/// The close code for a frame that cannot be taken; `None` when it is the socket that failed.
fn broken_rule(error: &Error) -> Option<(u16, &'static str)> {
    match error {
        // LIM-1
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some((1009, "Message too big")),
        Error::Utf8(_) => Some((1007, "Invalid frame payload data")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some((1002, "Protocol error")),
        _ => None,
    }
}

/// The rules close the connection, and the loop then finds its outbox closed.
fn violation(shared: &Arc<Shared>, connection: &ConnectionId, code: u16, reason: &'static str) {
    shared.step(|machine, now| machine.violation(now, connection, code, reason));
}

fn ended(shared: &Arc<Shared>, connection: &ConnectionId, code: u16, reason: &str) {
    shared.lock().sockets.remove(connection);
    shared.step(|machine, now| machine.closed(now, connection, code, reason));
}

async fn say_goodbye(stream: &mut Stream, Goodbye { code, reason }: Goodbye, readable: bool) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    let _ = timeout(CLOSE_TIMEOUT, stream.send(Frame::Close(Some(frame)))).await;
    if readable {
        return drain(stream).await;
    }
    // What is still unread would make the system reset the connection, and the client would lose the close frame.
    let socket = stream.get_mut();
    let swallow = async {
        let mut buffer = vec![0; 4096];
        socket.shutdown().await?;
        while socket.read(&mut buffer).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, swallow).await;
}

/// Reads until the client has answered the close frame, so that it gets ours before the socket goes.
async fn drain(stream: &mut Stream) {
    let answered = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = timeout(CLOSE_TIMEOUT, answered).await;
}
