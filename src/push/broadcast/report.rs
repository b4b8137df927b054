//! The outcome of a broadcast.

use std::fmt;
use std::time::Duration;

use super::super::{Incomplete, PushError};
use crate::event::ConnectionId;
use crate::metrics;

/// The outcome of a broadcast, with every connection accounted for exactly once.
///
/// `delivered`, `gone`, `failed` and `not_tried` always add up to [`ids`](Self::ids).
#[derive(Debug, Default)]
#[must_use = "it says which connections were not reached; `require_all` makes an error of it if there are any"]
#[non_exhaustive]
pub struct Report {
    /// The number of connections that the payload was delivered to.
    pub delivered: usize,
    /// Connections that are closed, or not open yet (410).
    pub gone: Vec<ConnectionId>,
    /// Connections for which every attempt failed.
    pub failed: Vec<FailedPush>,
    /// Connections that were not attempted before the deadline.
    pub not_tried: Vec<ConnectionId>,
    /// Whether the source of connections was read to its end. It was not if the deadline passed
    /// while the source was pending, or if the broadcast was interrupted.
    pub is_complete: bool,
    /// The number of attempts other than the first of each connection.
    pub retries: usize,
    /// The number of 429 responses, including those followed by a retry.
    pub throttles: usize,
    /// How long the broadcast took.
    pub elapsed: Duration,
}

/// A connection for which every attempt failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedPush {
    /// The connection that was not reached.
    pub connection_id: ConnectionId,
    /// The error of the last attempt. After [`PushError::TimedOut`] and [`PushError::Interrupted`]
    /// the payload may still have arrived.
    pub error: PushError,
}

impl Report {
    /// Returns the number of connections read from the source.
    pub fn ids(&self) -> usize {
        [self.gone.len(), self.failed.len(), self.not_tried.len()]
            .iter()
            .fold(self.delivered, |sum, more| sum.saturating_add(*more))
    }

    /// Returns whether every connection received the payload or is gone.
    pub fn is_success(&self) -> bool {
        self.is_complete && self.failed.is_empty() && self.not_tried.is_empty()
    }

    /// Returns an error unless every connection received the payload or is gone.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] contains the report, and says how many connections failed and why the first
    /// one did.
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

    /// Records the report in the metrics.
    pub(super) fn record(&self) {
        metrics::broadcast_ended(self.elapsed, self.retries, self.throttles);
        metrics::pushed("broadcast", "delivered", self.delivered);
        metrics::pushed("broadcast", "gone", self.gone.len());
        metrics::pushed("broadcast", "not_tried", self.not_tried.len());
        for failure in &self.failed {
            metrics::pushed("broadcast", failure.error.kind(), 1);
        }
    }

    /// Describes how many connections were not reached, and why the first one was not. Returns
    /// `None` after a success.
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

    /// Returns the [failed](Self::failed) connections whose clients do not read.
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

    /// Returns the connections whose error matches a predicate.
    ///
    /// For example `report.failed_with(|error| matches!(error, PushError::Throttled { .. }))`.
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
