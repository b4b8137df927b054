//! The outcome of a stream.

use std::fmt;
use std::time::Duration;

use super::BoxError;
use crate::push::{Incomplete, PushError};

/// The outcome of a [stream](crate::Pusher::stream).
///
/// A frame counts as soon as API Gateway has taken it. After [`StreamEnd::Failed`] and [`StreamEnd::Deadline`] the client may
/// have one more.
#[derive(Debug)]
#[must_use = "it says whether the client has the whole text; `require_all` makes an error of it if not"]
#[non_exhaustive]
pub struct StreamReport {
    /// How many frames were sent, the last one with `done` or an error included.
    pub frames: u64,
    /// How many tokens were sent to their end.
    pub tokens: u64,
    /// How many bytes of text were sent. It is a whole number of characters.
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
    /// The client has the whole text.
    Completed,
    /// The connection is closed, or not open yet: 410.
    Gone,
    /// The time was up.
    Deadline,
    /// A push failed.
    Failed(PushError),
    /// The source had an error.
    Source(BoxError),
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Gone => "the connection is gone",
            Self::Deadline => "the time was up",
            Self::Failed(_) => "a push failed",
            Self::Source(_) => "the source failed",
        })
    }
}

impl StreamReport {
    /// Whether the client has the whole text.
    pub fn is_success(&self) -> bool {
        matches!(self.end, StreamEnd::Completed)
    }

    /// Returns an error unless the client has the whole text.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] says how much was sent and why the stream ended, and has the report.
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

/// One line for a log, without ids and without text.
impl fmt::Display for StreamReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, tokens, bytes, end, elapsed } = self;
        let milliseconds = elapsed.as_millis();
        write!(f, "{tokens} tokens, {bytes} bytes in {frames} frames, {milliseconds} ms: {end}")
    }
}
