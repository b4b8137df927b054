//! The outcome of a stream.

use std::fmt;
use std::time::Duration;

use super::BoxError;
use crate::push::{Incomplete, PushError};

/// The outcome of a [stream](crate::Pusher::stream).
///
/// A frame counts as soon as API Gateway has accepted it. After [`StreamEnd::Failed`] and
/// [`StreamEnd::Deadline`] the client may have received one more.
#[derive(Debug)]
#[must_use = "the client may not have received the whole text; `require_all` returns an error then"]
#[non_exhaustive]
pub struct StreamReport {
    /// The number of frames sent, including the last one with `done` or an error.
    pub frames: u64,
    /// The number of tokens sent completely.
    pub tokens: u64,
    /// The number of bytes of text sent, which is a whole number of characters.
    pub bytes: u64,
    /// Why the stream ended.
    pub end: StreamEnd,
    /// How long the stream took.
    pub elapsed: Duration,
}

/// Why a [stream](crate::Pusher::stream) ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The client received the whole text.
    Completed,
    /// The connection is closed, or not open yet (410).
    Gone,
    /// The deadline of the invocation or the timeout of the stream passed.
    Deadline,
    /// A push failed.
    Failed(PushError),
    /// The source returned an error.
    Source(BoxError),
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Gone => "the connection is gone",
            Self::Deadline => "the deadline passed",
            Self::Failed(_) => "a push failed",
            Self::Source(_) => "the source failed",
        })
    }
}

impl StreamReport {
    /// Returns whether the client received the whole text.
    pub fn is_success(&self) -> bool {
        matches!(self.end, StreamEnd::Completed)
    }

    /// Returns an error unless the client received the whole text.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] contains the report, and says how much was sent and why the stream ended.
    pub fn require_all(self) -> Result<(), Incomplete<Self>> {
        if self.is_success() {
            return Ok(());
        }
        let text = format!("the stream ended after {} bytes: {}", self.bytes, self.end);
        let cause: Option<&(dyn std::error::Error + 'static)> = match &self.end {
            StreamEnd::Failed(error) => Some(error),
            StreamEnd::Source(error) => Some(&**error),
            StreamEnd::Completed | StreamEnd::Gone | StreamEnd::Deadline => None,
        };
        let text = Incomplete::<Self>::text(text, cause);
        Err(Incomplete::new(self, text))
    }
}

/// One line for a log, without ids and text.
impl fmt::Display for StreamReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, tokens, bytes, end, elapsed } = self;
        let milliseconds = elapsed.as_millis();
        write!(f, "{tokens} tokens, {bytes} bytes in {frames} frames, {milliseconds} ms: {end}")
    }
}
