//! Sweeps: finding connections whose `$disconnect` was lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::evidence::{Evidence, Origin};
use super::presence::{Budget, PresenceEvent};
use super::{AT_ONCE, Hub};
use crate::clock;
use crate::event::current_deadline;
use crate::metrics;
use crate::push::{FailedPush, Incomplete, PushError};
use crate::registry::{Connection, ConnectionKey, Namespace, ReadOptions, RegistryError, Slice};

/// The time of an invocation that is reserved for announcing departures.
const MARGIN: Duration = Duration::from_secs(1);
/// The number of positions in a round, which covers all connections.
const POSITIONS: u64 = 4096;
/// How many positions are checked before the next are read.
const STEP: u64 = 64;

/// The outcome of a sweep.
#[derive(Debug, Default)]
#[must_use = "an incomplete sweep needs a higher rate or a longer period; `require_all` returns an error for it"]
#[non_exhaustive]
pub struct SweepReport {
    /// How many connections were checked and are open.
    pub alive: usize,
    /// The stale connections that were removed.
    pub removed: Vec<ConnectionKey>,
    /// The connections that were closed because their authorization had expired.
    pub expired: Vec<ConnectionKey>,
    /// How many connections stay registered despite a 410 that is [not
    /// believed](Hub#stale-connections).
    pub withheld: usize,
    /// The connections whose state could not be determined. They are checked again in the next
    /// period.
    pub failed: Vec<FailedPush>,
    /// Whether every connection that was due has been checked.
    ///
    /// `false` if the time was up or the registry was not read completely.
    pub is_complete: bool,
    /// The registry's error, if the connections were not read completely.
    pub unread: Option<RegistryError>,
    /// How long the sweep took.
    pub elapsed: Duration,
}

impl SweepReport {
    /// Returns whether the state of every connection that was due has been determined.
    pub fn is_success(&self) -> bool {
        self.is_complete && self.unread.is_none() && self.failed.is_empty()
    }

    /// Adds the report to the metrics.
    fn record(&self) {
        let (removed, expired, failed) = (self.removed.len(), self.expired.len(), self.failed.len());
        let outcomes = [
            ("alive", self.alive),
            ("removed", removed),
            ("expired", expired),
            ("withheld", self.withheld),
            ("failed", failed),
        ];
        metrics::swept(self.elapsed, &outcomes);
    }

    /// Returns an error unless the state of every connection that was due has been determined.
    ///
    /// # Errors
    ///
    /// [`Incomplete`] with the number of connections that failed, the first reason, and the report.
    pub fn require_all(self) -> Result<(), Incomplete<Self>> {
        if self.is_success() {
            return Ok(());
        }
        let failed = self.failed.len();
        let asked = [self.alive, self.removed.len(), self.expired.len(), self.withheld]
            .into_iter()
            .fold(failed, usize::saturating_add);
        let text = match (&self.unread, self.failed.first()) {
            (Some(error), _) => Incomplete::<Self>::text("not all connections were read".to_owned(), Some(error)),
            (None, Some(first)) => {
                let text = format!("{failed} of {asked} connections could not be checked; the first error");
                Incomplete::<Self>::text(text, Some(&first.error))
            }
            (None, None) => "the deadline passed before all connections were checked".to_owned(),
        };
        Err(Incomplete::new(self, text))
    }
}

/// Formats the report as one line for a log, without ids.
impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { alive, removed, expired, withheld, failed, elapsed, .. } = self;
        let (removed, failed) = (removed.len(), failed.len());
        write!(f, "{alive} alive, {removed} removed, {failed} failed, {} ms", elapsed.as_millis())?;
        if !expired.is_empty() {
            write!(f, "; {} closed, since their authorization has expired", expired.len())?;
        }
        if *withheld > 0 {
            write!(f, "; {withheld} kept, since their 410 is not confirmed")?;
        }
        match (&self.unread, self.is_complete) {
            (Some(error), _) => write!(f, "; not all connections were read: {error}"),
            (None, false) => f.write_str("; the deadline passed before all connections were checked"),
            (None, true) => Ok(()),
        }
    }
}

/// The state of a connection.
enum Answer {
    Alive,
    /// The connection may not be open yet, or its 410 is not believed yet.
    Undecided,
    Gone(Vec<ConnectionKey>),
    /// The authorization of the client had expired, and the connection was closed.
    Expired(ConnectionKey),
    Failed(FailedPush),
}

/// The position up to which this process has swept each namespace.
pub(super) type Progress = Mutex<BTreeMap<Namespace, u64>>;

impl Hub {
    /// Checks the connections that are due with API Gateway, and removes the stale ones.
    ///
    /// `$disconnect` is best-effort. Every connection is due once in each
    /// [period](super::HubBuilder::with_sweep_period), at a time that depends only on a hash. A
    /// sweep checks those that have become due since the last sweep of this process, or in the last
    /// [interval](super::HubBuilder::with_sweep_interval). So one sweep per interval covers all
    /// connections, and writes nothing about open ones.
    ///
    /// A connection whose client's [authorization has
    /// expired](Connection::authorization_expires_at) is closed and removed when it is due, at most
    /// one period later. Until then, a hub sends it nothing.
    ///
    /// A sweep makes at most [this many requests a second](super::HubBuilder::with_sweep_rate). In
    /// a Lambda invocation, it ends a second before the deadline, and the next sweep of the process
    /// continues there.
    ///
    /// # Examples
    ///
    /// ```
    /// use lambda_websocket::{hub::Hub, registry::Namespace};
    ///
    /// # async fn sweep(hub: Hub, namespace: Namespace) {
    /// let report = hub.sweep(&namespace).await;
    /// println!("{report}");
    /// # }
    /// ```
    pub async fn sweep(&self, namespace: &Namespace) -> SweepReport {
        self.sweep_until(namespace, invocation_end()).await
    }

    async fn sweep_until(&self, namespace: &Namespace, end: Option<Instant>) -> SweepReport {
        let start = Instant::now();
        let mut report = SweepReport { is_complete: true, ..SweepReport::default() };
        let mut events = Vec::new();
        let evidence = Evidence::new(self);
        let mut pace = interval(
            Duration::from_secs(1).checked_div(self.parts.sweep_rate).unwrap_or_default().max(Duration::from_millis(1)),
        );
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut position, until) = self.turns(namespace);
        while position < until {
            // To the end of the step, or of the round.
            let next =
                position.saturating_sub(position.checked_rem(STEP).unwrap_or_default()).saturating_add(STEP).min(until);
            let ring =
                |position: u64| u16::try_from(position.checked_rem(POSITIONS).unwrap_or_default()).unwrap_or_default();
            let slice = Slice::of_positions(ring(position), ring(next.saturating_sub(1)).saturating_add(1));
            let is_done = self.sweep_slice(namespace, slice, &evidence, &mut pace, end, &mut report, &mut events).await;
            if !is_done {
                report.is_complete = false;
                break;
            }
            position = next;
            self.swept_to(namespace, position);
        }
        report.withheld = evidence.withheld();
        self.announce_or_queue(events, Budget::All).await;
        report.elapsed = start.elapsed();
        report.record();
        report
    }

    /// Returns the range of positions at which connections are due.
    fn turns(&self, namespace: &Namespace) -> (u64, u64) {
        let at = |time: SystemTime| {
            let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let period = self.parts.sweep_period.as_millis().max(1);
            let position = since_1970.saturating_mul(u128::from(POSITIONS)).checked_div(period).unwrap_or_default();
            u64::try_from(position).unwrap_or(u64::MAX)
        };
        let now = clock::now();
        let until = at(now);
        let progress = self.parts.progress.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).copied();
        if self.parts.sweep_period <= self.parts.sweep_interval {
            // One round, from where the last sweep ended.
            let from = progress.unwrap_or_default().checked_rem(POSITIONS).unwrap_or_default();
            return (from, from.saturating_add(POSITIONS));
        }
        // The margin lets a sweep that is a little late still cover every connection.
        let before =
            self.parts.sweep_interval.saturating_add(self.parts.sweep_interval.checked_div(4).unwrap_or_default());
        let latest = at(now.checked_sub(before).unwrap_or(UNIX_EPOCH));
        // Progress is useless after the clock has stepped back.
        let from = progress.filter(|progress| *progress <= until).unwrap_or(latest);
        match until.saturating_sub(from) {
            0..=POSITIONS => (from, until),
            // More than a round behind: continue at the same position of the latest round.
            behind => match behind.checked_rem(POSITIONS) {
                None | Some(0) => (until.saturating_sub(POSITIONS), until),
                Some(behind) => (until.saturating_sub(behind).min(latest), until),
            },
        }
    }

    fn swept_to(&self, namespace: &Namespace, position: u64) {
        self.parts.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone(), position);
    }

    /// Checks the connections of a slice. Returns whether it was completed.
    #[allow(clippy::too_many_arguments, reason = "extracted from the loop above")]
    async fn sweep_slice(
        &self,
        namespace: &Namespace,
        slice: Slice,
        evidence: &Evidence<'_>,
        pace: &mut tokio::time::Interval,
        end: Option<Instant>,
        report: &mut SweepReport,
        events: &mut Vec<PresenceEvent>,
    ) -> bool {
        let connections =
            self.parts.registry.slice(namespace, slice, ReadOptions::default()).flat_map(|page| match page {
                Ok(page) => stream::iter(page.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            });
        // A connection that may not be open yet need not be checked.
        let connections = connections.filter(|connection| {
            std::future::ready(connection.as_ref().map_or(true, |connection| !self.is_young(connection)))
        });
        let ticks = stream::poll_fn(move |cx| pace.poll_tick(cx).map(Some));
        let paced = connections.zip(ticks).map(|(connection, _)| connection);
        let answers = paced.map(|connection| async move { Ok(self.ask(connection?, evidence).await) });
        let mut answers = Box::pin(answers.buffer_unordered(AT_ONCE));
        loop {
            let answer: Option<Result<Answer, RegistryError>> = match end {
                None => answers.next().await,
                // If time is up, stop between two responses: a removal in progress is completed.
                Some(end) => match timeout_at(end, answers.next()).await {
                    Ok(answer) => answer,
                    Err(_) => return false,
                },
            };
            let Some(answer) = answer else { return true };
            match answer {
                Ok(Answer::Alive) => report.alive = report.alive.saturating_add(1),
                Ok(Answer::Undecided) => {}
                Ok(Answer::Gone(keys)) => {
                    let removed = self.remove_all(stream::iter(keys)).await;
                    report.removed.extend(removed.keys);
                    events.extend(removed.events);
                }
                Ok(Answer::Expired(key)) => {
                    let removed = self.remove_all(stream::iter([key.clone()])).await;
                    report.expired.push(key);
                    events.extend(removed.events);
                }
                Ok(Answer::Failed(failure)) => report.failed.push(failure),
                Err(error) => {
                    // A record that cannot be read must not keep the other connections from being
                    // checked.
                    let goes_on = !error.is_retryable();
                    report.unread = Some(error);
                    report.is_complete = false;
                    return goes_on;
                }
            }
        }
    }

    async fn close_expired(&self, connection: Connection, evidence: &Evidence<'_>) -> Answer {
        let closed = match self.pusher_for(&connection) {
            Ok(pusher) => pusher.close(connection.id()).await,
            Err(error) => Err(error),
        };
        match closed {
            Ok(()) => Answer::Expired(connection.key().clone()),
            Err(PushError::Gone { .. }) => match evidence.gone(Origin::new(&connection)) {
                believed if believed.is_empty() => Answer::Undecided,
                believed => Answer::Gone(believed),
            },
            Err(error) => Answer::Failed(FailedPush { connection_id: connection.id().clone(), error }),
        }
    }

    async fn ask(&self, connection: Connection, evidence: &Evidence<'_>) -> Answer {
        if !connection.is_authorized(clock::now()) {
            return self.close_expired(connection, evidence).await;
        }
        let info = match self.pusher_for(&connection) {
            Ok(pusher) => pusher.info(connection.id()).await,
            Err(error) => Err(error),
        };
        let believed = match info {
            Ok(_) => {
                let believed = evidence.alive(&Origin::new(&connection));
                if believed.is_empty() {
                    return Answer::Alive;
                }
                believed
            }
            Err(PushError::Gone { .. }) => evidence.gone(Origin::new(&connection)),
            Err(error) => return Answer::Failed(FailedPush { connection_id: connection.id().clone(), error }),
        };
        if believed.is_empty() { Answer::Undecided } else { Answer::Gone(believed) }
    }

    /// Runs as a Lambda function that sweeps each namespace in every invocation, whatever the
    /// event.
    ///
    /// Invoke it by an EventBridge schedule, such as `rate(1 minute)`. The namespaces share the
    /// time of the invocation.
    ///
    /// # Errors
    ///
    /// An error if the process does not run in Lambda, or if the Lambda runtime fails. An
    /// invocation fails with [`RegistryError`] if a registry could not be read.
    #[cfg(feature = "runtime")]
    pub async fn run_sweeper(self, namespaces: Vec<Namespace>) -> Result<(), lambda_runtime::Error> {
        use std::sync::Arc;

        use crate::event::within_deadline;
        use crate::runtime::{check_environment, invocation};
        use lambda_runtime::{LambdaEvent, service_fn};

        check_environment()?;
        let namespaces: Arc<[Namespace]> = namespaces.into();
        let sweep = service_fn(move |event: LambdaEvent<serde::de::IgnoredAny>| {
            let (hub, namespaces) = (self.clone(), Arc::clone(&namespaces));
            let deadline = invocation(event.context).deadline;
            within_deadline(deadline, async move { hub.sweep_all(&namespaces).await })
        });
        lambda_runtime::run_concurrent(sweep).await
    }

    /// Sweeps each of these namespaces in its share of the invocation's time.
    #[cfg(feature = "runtime")]
    async fn sweep_all(&self, namespaces: &[Namespace]) -> Result<(), RegistryError> {
        let mut first_error = None;
        for (number, namespace) in namespaces.iter().enumerate() {
            let waiting = u32::try_from(namespaces.len().saturating_sub(number)).unwrap_or(u32::MAX);
            let now = Instant::now();
            let share = invocation_end()
                .and_then(|end| now.checked_add(end.saturating_duration_since(now).checked_div(waiting)?));
            let report = self.sweep_until(namespace, share).await;
            tracing::info!(%namespace, %report, "swept");
            first_error = first_error.take().or(report.unread);
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// Returns when the invocation is nearly over, if there is one.
fn invocation_end() -> Option<Instant> {
    let left = current_deadline()?.duration_since(clock::now()).unwrap_or_default().saturating_sub(MARGIN);
    Instant::now().checked_add(left)
}
