//! The frames of a stream.
//!
//! Only this file knows the names of their members and the error codes.

use serde::Serialize;
use serde_json::value::RawValue;

use super::BoxError;
use crate::push::{MAX_PAYLOAD_BYTES, Payload, PushError};

/// Every frame has room for at least this many bytes of text.
const MIN_ROOM: usize = 64;

#[derive(Serialize)]
struct Frame<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    seq: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    chunk: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
}

#[derive(Clone, Copy, Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

/// The errors that a stream itself reports to its client.
const INTERNAL: ErrorBody<'static> = ErrorBody { code: "internal", message: "the stream failed" };
const TIMEOUT: ErrorBody<'static> = ErrorBody { code: "timeout", message: "the stream ran out of time" };

/// Builds the frames of one stream.
pub(super) struct Frames {
    id: Option<Box<RawValue>>,
    next: u64,
    room: usize,
}

impl Frames {
    /// Creates frames with this maximum size.
    pub(super) fn new(id: Option<Box<RawValue>>, max_bytes: usize) -> Result<Self, PushError> {
        let mut frames = Self { id, next: u64::MAX, room: 0 };
        // Minus the `x`: a frame with empty text would omit the member.
        let envelope = frames.frame("x", true, None)?.bytes().len().saturating_sub(1);
        let smallest = envelope.saturating_add(MIN_ROOM);
        if smallest > MAX_PAYLOAD_BYTES {
            return Err(PushError::TooLarge { size: smallest });
        }
        frames.room = max_bytes.max(smallest).saturating_sub(envelope);
        frames.next = 0;
        Ok(frames)
    }

    /// Returns the maximum bytes of JSON for the text of a frame.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Builds the next frame, with a part of the text.
    pub(super) fn chunk(&mut self, text: &str, is_last: bool) -> Result<Payload, PushError> {
        let frame = self.frame(text, is_last, None)?;
        self.next = self.next.saturating_add(1);
        Ok(frame)
    }

    /// Builds the last frame of a stream that ran out of time.
    pub(super) fn timeout(&self) -> Result<Payload, PushError> {
        self.frame("", false, Some(TIMEOUT))
    }

    /// Builds the last frame of a stream whose source failed.
    pub(super) fn error(&self, error: &BoxError) -> Result<Payload, PushError> {
        let said = error.downcast_ref::<StreamError>();
        let body = said.map_or(INTERNAL, |error| ErrorBody { code: &error.code, message: &error.message });
        // A message that is too large must not keep the client from learning that the stream ended.
        self.frame("", false, Some(body)).or_else(|_| self.frame("", false, Some(INTERNAL)))
    }

    fn frame(&self, chunk: &str, done: bool, error: Option<ErrorBody<'_>>) -> Result<Payload, PushError> {
        Payload::json(&Frame { id: self.id.as_deref(), seq: self.next, chunk, done, error })
    }
}

/// An error of a token source whose message is sent to the client.
///
/// See [`Pusher::try_stream`](crate::Pusher::try_stream).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StreamError {
    code: String,
    message: String,
}

impl StreamError {
    /// Creates an error from a stable code for programs and a message for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// Returns the code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Returns the message.
    pub fn message(&self) -> &str {
        &self.message
    }
}
