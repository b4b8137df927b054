//! Looking for connections whose `$disconnect` was lost.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{AT_ONCE, Change, Hub};
use crate::clock;
use crate::event::current_deadline;
use crate::push::{Failure, PushError};
use crate::registry::{Connection, ConnectionKey, Namespace, ReadOptions, RegistryError, Removed};

/// What is left of the invocation to tell groups who went.
const MARGIN: Duration = Duration::from_secs(1);

/// What a sweep found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// How many connections were asked about and are open.
    pub alive: usize,
    /// Those that are gone and were removed.
    pub removed: Vec<ConnectionKey>,
    /// Those of which nothing could be learnt. The next sweep asks again.
    pub failed: Vec<Failure>,
    /// Whether all suspicious connections were asked about. Otherwise the time was up.
    pub is_complete: bool,
    /// Why the registry did not name all suspicious connections, if it did not.
    pub unread: Option<RegistryError>,
    /// How long it took.
    pub elapsed: Duration,
}

/// One line for a log, without ids.
impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { alive, removed, failed, elapsed, .. } = self;
        let (removed, failed) = (removed.len(), failed.len());
        write!(f, "{alive} alive, {removed} removed, {failed} failed, {} ms", elapsed.as_millis())?;
        match (&self.unread, self.is_complete) {
            (Some(error), _) => write!(f, "; not all were read: {error}"),
            (None, false) => f.write_str("; there was no time for more"),
            (None, true) => Ok(()),
        }
    }
}

/// What was learnt about a connection.
enum Answer {
    Alive,
    Removed(Box<Removed>),
    /// It is gone, and somebody else removed it, or it may not be open yet.
    Settled,
    Failed(Failure),
}

impl Hub {
    /// Asks API Gateway about connections of which nothing was heard for the [lease](Self::with_lease), and removes those that
    /// are gone.
    ///
    /// API Gateway does not promise that it calls `$disconnect`. With a sweep every so often, a lost one is noticed within the
    /// lease and that time. Each connection is asked about once in a lease, [so many a second](Self::with_sweep_rate). A sweep in
    /// a Lambda invocation ends before its deadline; the next goes on.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use lambda_websocket::{hub::Hub, registry::Namespace};
    ///
    /// # async fn sweep(hub: Hub, namespace: Namespace) {
    /// let swept = hub.with_lease(Duration::from_secs(300)).sweep(&namespace).await;
    /// println!("{swept}");
    /// # }
    /// ```
    pub async fn sweep(&self, namespace: &Namespace) -> Swept {
        let start = Instant::now();
        let mut swept = Swept { is_complete: true, ..Swept::default() };
        let mut changes = Vec::new();
        let suspicious = clock::now().checked_sub(self.lease).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut pace = interval(
            Duration::from_secs(1).checked_div(self.sweep_rate).unwrap_or_default().max(Duration::from_millis(1)),
        );
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pages = self.registry.unseen_since(namespace, suspicious, ReadOptions::default());
        let connections = pages.flat_map(|page| match page {
            Ok(page) => stream::iter(page.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        });
        let ticks = stream::poll_fn(move |cx| pace.poll_tick(cx).map(Some));
        let paced = connections.zip(ticks).map(|(connection, _)| connection);
        let is_late = AtomicBool::new(false);
        // What was begun is finished.
        let in_time = paced.take_until(async {
            until_late().await;
            is_late.store(true, Ordering::Relaxed);
        });
        let answers = in_time.map(|connection| async move { Ok(self.ask(connection?).await) });
        let mut answers = Box::pin(answers.buffer_unordered(AT_ONCE));
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(Answer::Alive) => swept.alive = swept.alive.saturating_add(1),
                Ok(Answer::Removed(removed)) => {
                    changes.extend(Change::of_removed(&removed));
                    swept.removed.push(removed.connection.key().clone());
                }
                Ok(Answer::Settled) => {}
                Ok(Answer::Failed(failure)) => swept.failed.push(failure),
                Err(error) => swept.unread = Some(error),
            }
        }
        drop(answers);
        swept.is_complete = !is_late.into_inner() && swept.unread.is_none();
        self.announce(changes).await;
        swept.elapsed = start.elapsed();
        swept
    }

    async fn ask(&self, connection: Connection) -> Answer {
        let key = connection.key();
        let info = match self.pusher_for(&connection) {
            Ok(pusher) => pusher.info(connection.id()).await,
            Err(error) => Err(error),
        };
        let noted = match info {
            Ok(_) => self.registry.touch(key, clock::now()).await.map(|_| Answer::Alive),
            Err(PushError::Gone { .. }) if self.is_young(&connection) => Ok(Answer::Settled),
            Err(PushError::Gone { .. }) => {
                let removed = self.registry.remove(key).await;
                removed.map(|removed| removed.map_or(Answer::Settled, |removed| Answer::Removed(Box::new(removed))))
            }
            Err(error) => Ok(Answer::Failed(Failure { connection_id: connection.id().clone(), error })),
        };
        noted.unwrap_or_else(|error| {
            tracing::warn!(connection_id = %key.id(), %error, "what was learnt about a connection is not noted");
            Answer::Settled
        })
    }

    /// Runs sweeps as a Lambda function, one for each invocation and namespace, whatever the event: for a schedule of EventBridge.
    ///
    /// # Errors
    ///
    /// When the process does not run in Lambda, and when the Lambda runtime ends with an error.
    #[cfg(feature = "runtime")]
    pub async fn run_sweeper(self, namespaces: Vec<Namespace>) -> Result<(), lambda_runtime::Error> {
        use crate::event::within_deadline;
        use crate::runtime::{check_environment, invocation};
        use lambda_runtime::{LambdaEvent, service_fn};

        check_environment()?;
        let sweep = service_fn(|event: LambdaEvent<serde::de::IgnoredAny>| async {
            let deadline = invocation(event.context).deadline;
            for namespace in &namespaces {
                let swept = within_deadline(deadline, self.sweep(namespace)).await;
                tracing::info!(%namespace, %swept, "swept");
                if let Some(error) = swept.unread {
                    return Err(error);
                }
            }
            Ok(())
        });
        lambda_runtime::run(sweep).await
    }
}

/// Comes when an invocation is nearly over; without one, never.
async fn until_late() {
    match current_deadline() {
        None => std::future::pending().await,
        Some(deadline) => {
            sleep(deadline.duration_since(clock::now()).unwrap_or_default().saturating_sub(MARGIN)).await;
        }
    }
}
