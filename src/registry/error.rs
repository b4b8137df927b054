//! Why a registry could not answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::Group;
use crate::event::chain;

type Source = Box<dyn Error + Send + Sync>;

/// A registry failed to read or to write.
///
/// A connection that is not registered is no error: see [`Joined`](super::Joined) and [`Left`](super::Left).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The store throttles: retried until there was no time left.
    #[error("the registry was throttled")]
    Throttled {
        /// Its answer.
        source: Source,
    },
    /// Other writers changed the same records at the same time: retried until there was no time left.
    #[error("other writers keep changing the same connection or the same principal of a group")]
    Contended,
    /// There was no answer in time. The change may have happened.
    #[error("no answer from the registry within {} ms", .after.as_millis())]
    TimedOut {
        /// How long it took.
        after: Duration,
    },
    /// It cannot be reached, or it failed: retried until there was no time left.
    #[error("the registry cannot be reached, or failed")]
    Unavailable {
        /// Why.
        source: Source,
    },
    /// The caller lacks a permission.
    #[error(
        "access to the registry is denied: give the role the permissions that the documentation of the registry lists"
    )]
    Forbidden {
        /// Its answer.
        source: Source,
    },
    /// There is no such table.
    #[error("there is no table {table:?} in this account and region, or it lacks the index `connections`")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// A record does not have the form that this registry writes.
    #[error("a record of the registry is not readable: {problem}")]
    Unreadable {
        /// What was expected where.
        problem: String,
    },
    /// One call names more groups than one change can have.
    #[error("{count} groups are too many for one change: join or leave at most {} at once", Group::MAX_AT_ONCE)]
    TooManyGroups {
        /// How many.
        count: usize,
    },
    /// Anything else.
    #[error("the registry refused the request")]
    Refused {
        /// Its answer.
        source: Source,
    },
}

impl RegistryError {
    /// Whether the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Contended | Self::TimedOut { .. } | Self::Unavailable { .. } => true,
            Self::Forbidden { .. }
            | Self::NoTable { .. }
            | Self::Unreadable { .. }
            | Self::TooManyGroups { .. }
            | Self::Refused { .. } => false,
        }
    }
}

/// The texts of the error and its sources: it is what a `main` prints that returns the error.
///
/// The sources' own `Debug` may show a whole answer, and with it a connection's data.
impl fmt::Debug for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}

/// A stable error type for the log and for alarms.
#[cfg(feature = "runtime")]
impl From<RegistryError> for lambda_runtime::Diagnostic {
    fn from(error: RegistryError) -> Self {
        Self { error_type: "lambda_websocket::RegistryError".to_owned(), error_message: error.to_string() }
    }
}
