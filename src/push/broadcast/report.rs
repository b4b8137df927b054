//! What became of a broadcast.

use std::fmt;
use std::time::Duration;

use super::super::{Incomplete, PushError};
use crate::event::ConnectionId;
use crate::metrics;

/// What became of every connection that a broadcast was for.
///
/// `delivered`, `gone`, `failed` and `not_tried` add up to [`ids`](Self::ids), always.
#[derive(Debug, Default)]
#[must_use = "it says which connections were not reached; `require_all` makes an error of it if there are any"]
#[non_exhaustive]
pub struct Report {
    /// How many connections the payload was delivered to.
    pub delivered: usize,
    /// Connections that are closed, or not open yet.
    pub gone: Vec<ConnectionId>,
    /// Connections that were tried in vain.
    pub failed: Vec<Failure>,
    /// Connections for which there was no time.
    pub not_tried: Vec<ConnectionId>,
    /// Whether the source of the connections came to its end. It did not when the time was up while it waited for more, or
    /// when the broadcast was interrupted.
    pub is_complete: bool,
    /// How many attempts were made beside the first of each connection.
    pub retries: usize,
    /// How many attempts were answered with 429, those before a retry included.
    pub throttles: usize,
    /// How long it took.
    pub elapsed: Duration,
}

/// A connection that was tried in vain.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Which.
    pub connection_id: ConnectionId,
    /// The error of the last attempt. After [`PushError::TimedOut`] and [`PushError::Interrupted`] the payload may have
    /// arrived all the same.
    pub error: PushError,
}

impl Report {
    /// How many connections the source named.
    pub fn ids(&self) -> usize {
        [self.gone.len(), self.failed.len(), self.not_tried.len()]
            .iter()
            .fold(self.delivered, |sum, more| sum.saturating_add(*more))
    }

    /// Whether every connection either has the payload or is gone.
    pub fn is_success(&self) -> bool {
        self.is_complete && self.failed.is_empty() && self.not_tried.is_empty()
    }

    /// Returns an error unless every connection either has the payload or is gone.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] says how many connections failed and why the first one did, and has the report.
    ///
    /// # Examples
    ///
    /// ```
    /// # use lambda_websocket::{Pusher, event::ConnectionId};
    /// # async fn tell(pusher: Pusher, ids: Vec<ConnectionId>) -> lambda_websocket::Result<()> {
    /// pusher.broadcast(ids, "hello")?.await.require_all()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn require_all(self) -> Result<(), Incomplete<Self>> {
        match self.shortcoming() {
            None => Ok(()),
            Some(text) => Err(Incomplete::new(self, text)),
        }
    }

    /// Adds it to the metrics.
    pub(super) fn record(&self) {
        metrics::broadcast_ended(self.elapsed, self.retries, self.throttles);
        metrics::pushed("broadcast", "delivered", self.delivered);
        metrics::pushed("broadcast", "gone", self.gone.len());
        metrics::pushed("broadcast", "not_tried", self.not_tried.len());
        for failure in &self.failed {
            metrics::pushed("broadcast", failure.error.kind(), 1);
        }
    }

    /// Says how many connections were not reached, and why the first of them was not. Returns `None` after a success.
    pub(crate) fn shortcoming(&self) -> Option<String> {
        if self.is_success() {
            return None;
        }
        let (missed, all) = (self.failed.len().saturating_add(self.not_tried.len()), self.ids());
        let first = self.failed.first().map(|failure| &failure.error as &(dyn std::error::Error + 'static));
        Some(match (missed, first) {
            (0, _) => "the time was up before all connections were known".to_owned(),
            (_, None) => format!("{missed} of {all} connections were not reached: there was no time for them"),
            (_, first) => {
                Incomplete::<Self>::text(format!("{missed} of {all} connections were not reached; the first"), first)
            }
        })
    }

    /// The connections whose clients do not read, which are among those that [failed](Self::failed).
    ///
    /// # Examples
    ///
    /// ```
    /// # use lambda_websocket::{Pusher, push::{PushError, Report}};
    /// # async fn disconnect(pusher: Pusher, report: Report) -> Result<(), PushError> {
    /// for connection_id in report.slow_consumers() {
    ///     pusher.close(connection_id).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn slow_consumers(&self) -> impl Iterator<Item = &ConnectionId> {
        self.failed_with(|error| matches!(error, PushError::SlowConsumer { .. }))
    }

    /// The connections that failed so, as in `report.failed_with(|error| matches!(error, PushError::Throttled { .. }))`.
    pub fn failed_with(&self, is_kind: impl Fn(&PushError) -> bool) -> impl Iterator<Item = &ConnectionId> {
        self.failed.iter().filter(move |failure| is_kind(&failure.error)).map(|failure| &failure.connection_id)
    }
}

/// One line for a log, without ids.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivered, gone, failed, not_tried, retries, elapsed, .. } = self;
        let (gone, failed, not_tried) = (gone.len(), failed.len(), not_tried.len());
        let milliseconds = elapsed.as_millis();
        write!(
            f,
            "{} connections: {delivered} delivered, {gone} gone, {failed} failed, {not_tried} not tried; {retries} retries, \
             {milliseconds} ms",
            self.ids()
        )
    }
}
