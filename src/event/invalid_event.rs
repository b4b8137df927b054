//! Why JSON is not an event.

/// The JSON is not an event that this function can take.
///
/// No text of it quotes a header, a query parameter or a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// It is not JSON at all.
    #[error("the event is not JSON: line {line}, column {column}")]
    NotJson {
        /// The line, counted from 1.
        line: usize,
        /// The column in bytes, counted from 1.
        column: usize,
    },
    /// It is JSON, but not an object with members of the types that API Gateway sends.
    #[error("the event does not have the shape that API Gateway sends: line {line}, column {column}")]
    Shape {
        /// The line, counted from 1.
        line: usize,
        /// The column in bytes, counted from 1.
        column: usize,
    },
    /// It is the event of something else.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What the function takes.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// A member is absent or `null` that is always there.
    #[error("the event lacks `{member}`")]
    Missing {
        /// The member's path.
        member: &'static str,
    },
    /// A member has another form than it always has.
    #[error("the event's `{member}` is not valid: {reason}")]
    Member {
        /// The member's path.
        member: String,
        /// What was expected.
        reason: String,
    },
}
