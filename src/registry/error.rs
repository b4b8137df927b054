//! Why a registry could not answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

type Source = Box<dyn Error + Send + Sync>;

/// The registry could not do what it was asked for.
///
/// That a connection is not registered is no error: see [`Joined`](super::Joined) and [`Left`](super::Left).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It has more to do than it can: retried until there was no time left.
    #[error("the registry was throttled")]
    Throttled {
        /// What it said.
        source: Source,
    },
    /// Others wrote the same again and again: retried until there was no time left.
    #[error("others wrote about the same connection, group or principal at the same time, again and again")]
    Contended,
    /// There was no answer in time. What was to be written may have been.
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
    /// The caller may not do that.
    #[error("the registry does not allow it: does the role have the rights that its documentation names?")]
    Forbidden {
        /// What it said.
        source: Source,
    },
    /// There is no such table.
    #[error("there is no table {table:?} in this account and region")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// A record is there that the registry did not write so.
    #[error("a record of the registry is not readable: {problem}")]
    Unreadable {
        /// What was expected where.
        problem: String,
    },
    /// Anything else.
    #[error("the registry refused")]
    Refused {
        /// What it said.
        source: Source,
    },
}

impl RegistryError {
    /// Whether the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Contended | Self::TimedOut { .. } | Self::Unavailable { .. } => true,
            Self::Forbidden { .. } | Self::NoTable { .. } | Self::Unreadable { .. } | Self::Refused { .. } => false,
        }
    }
}

/// The texts of the error and its sources. Their own `Debug` may show a whole answer, and with it a connection's data.
impl fmt::Debug for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryError({self}")?;
        let mut next = self.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        f.write_str(")")
    }
}

/// A stable error type for the log and for alarms.
#[cfg(feature = "runtime")]
impl From<RegistryError> for lambda_runtime::Diagnostic {
    fn from(error: RegistryError) -> Self {
        Self { error_type: "lambda_websocket::RegistryError".to_owned(), error_message: error.to_string() }
    }
}
