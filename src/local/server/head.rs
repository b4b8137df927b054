//! The head of a request as it came: hyper makes the names of headers lower case, and API Gateway keeps their case.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Longer heads are refused by hyper anyway.
const LONGEST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 128;

/// A TCP stream that remembers what was read from it, until the head of the first request is complete.
pub(super) struct Tap {
    stream: TcpStream,
    head: Head,
}

/// What a [`Tap`] remembers.
#[derive(Clone, Default)]
pub(super) struct Head(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    bytes: Vec<u8>,
    is_complete: bool,
}

impl Tap {
    pub(super) fn new(stream: TcpStream) -> (Self, Head) {
        let head = Head::default();
        (Self { stream, head: head.clone() }, head)
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl Head {
    /// The headers of the connection's first request in their order; `None` when it is another request's turn.
    pub(super) fn headers(&self, path: &str) -> Option<Vec<(String, String)>> {
        let head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(&head.bytes).ok().filter(httparse::Status::is_complete)?;
        if request.path != Some(path) {
            return None;
        }
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Some(request.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect())
    }

    fn remember(&self, bytes: &[u8]) {
        let mut head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !head.is_complete {
            head.bytes.extend_from_slice(bytes);
            head.is_complete =
                head.bytes.len() > LONGEST_HEAD || head.bytes.windows(4).any(|window| window == b"\r\n\r\n");
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.head.remember(buffer.filled().get(before..).unwrap_or_default());
        read
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
