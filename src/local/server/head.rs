//! The head of a request as received.
//!
//! hyper lowercases the names of headers, but API Gateway keeps their case.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The maximum number of recorded bytes.
///
/// If a head exceeds it, its header names are lowercase.
const MAX_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;

/// A TCP stream that records the bytes read since the last write.
pub(super) struct Tap {
    stream: TcpStream,
    head: Head,
}

/// The bytes that a [`Tap`] recorded.
///
/// They include the head of the request without a response, and possibly other data.
#[derive(Clone, Default)]
pub(super) struct Head(Arc<Mutex<Vec<u8>>>);

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
    /// Returns the headers of a request in their order and as they were written.
    ///
    /// Returns `None` if the head is not recorded. A recorded head belongs to the request if it
    /// equals what hyper has parsed, so other recorded data does not matter.
    pub(super) fn headers(&self, method: &Method, parsed: &HeaderMap) -> Option<Vec<(String, String)>> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = format!("{method} ");
        (0..bytes.len()).filter(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(start.as_bytes()))).find_map(
            |at| {
                let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
                let mut request = httparse::Request::new(&mut headers);
                request.parse(bytes.get(at..)?).ok().filter(httparse::Status::is_complete)?;
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                is_same(request.headers, parsed).then(|| {
                    request.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect()
                })
            },
        )
    }

    fn remember(&self, bytes: &[u8]) {
        let mut head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_BYTES.saturating_sub(head.len());
        head.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }

    /// Clears the record when a response is written.
    fn forget(&self) {
        let mut head = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        head.clear();
    }
}

/// Returns whether headers are the same except for the case of their names.
fn is_same(headers: &[httparse::Header<'_>], parsed: &HeaderMap) -> bool {
    headers.len() == parsed.len()
        && parsed.keys().all(|name| {
            let written = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name.as_str()));
            written.map(|header| header.value).eq(parsed.get_all(name).iter().map(|value| value.as_bytes()))
        })
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
        self.head.forget();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.head.forget();
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
