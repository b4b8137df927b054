//! A Lambda function that runs jobs from a queue and replies to their clients.

mod batch;
mod delivery;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod errors;
mod incoming;
mod outcome;
mod store;
mod task;
mod work;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::LambdaEvent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower_service::Service;

#[cfg(feature = "dynamodb")]
pub use self::dynamodb::DynamoDb;
pub use self::outcome::{JobFailure, MessageRejection, Undelivered, UnfinishedJob};
pub use self::store::{Claim, IdempotencyStore, InMemory, LeaseOwner};
pub use self::task::Task;
use super::Keys;
use crate::event::{ApiId, OnTrace, Stage, TraceContext};
use crate::push::{Pusher, Pushers};
use crate::route::failure::ErrorMap;
use crate::route::{self, ReplyFormat};
use crate::runtime::{check_environment, invocation};

const CONCURRENCY: usize = 10;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Handler<T, R> = dyn Fn(Task<T>) -> BoxFuture<route::Result<R>> + Send + Sync;
type OnUndelivered<R> = dyn Fn(Undelivered<R>) -> BoxFuture<()> + Send + Sync;
type OnError = dyn Fn(JobFailure) -> BoxFuture<()> + Send + Sync;
type OnRejection = dyn Fn(&MessageRejection) + Send + Sync;

/// Runs a job for each queue message and pushes the result to its client.
///
/// The message is a [`Job`](super::Job) from SQS, SNS, SNS through SQS, or EventBridge, with or
/// without SQS. The client gets
///
/// - `{"id":…,"progress":…}` for each [progress](Task::progress) report;
/// - finally `{"id":…,"result":…}` or `{"id":…,"error":{"code":…,"message":…}}`, in the
///   [reply protocol](crate::route#the-reply-protocol) of routers.
///
/// | the job | the client gets | the message is |
/// |---|---|---|
/// | succeeds and its result is delivered | the result | acknowledged |
/// | succeeds and its client has disconnected | – | acknowledged; a [hook](Self::on_undelivered) gets the result |
/// | succeeds and its result exceeds 128 KB, or fails to serialize as JSON | `too_large`, `internal` | acknowledged; the same hook gets the result, and an error is logged |
/// | succeeds and API Gateway rejects the push with 400 | – | the same |
/// | succeeds and cannot be pushed now: throttled, unreachable, or the worker lacks a permission (403) | – | retried |
/// | returns an [`Error::client`](route::Error::client) | its code, message and details | acknowledged |
/// | returns another error, or panics | – | retried |
/// | the same, in its [last delivery](Self::with_max_receive_count) | `internal` | moved to the dead-letter queue |
/// | is not finished 500 ms before the invocation's deadline, or is killed | – | retried |
/// | is in the dead-letter queue | `internal`, from the function of [`dead_letters`](Worker::dead_letters) | acknowledged |
/// | cannot be read, has an untrusted address, or is for another API or stage | – | retried without running the job until it reaches the dead-letter queue; a [hook](Self::on_rejection) is called, and an error is logged |
/// | has an expired address | – | acknowledged without running the job; the same hook is called |
/// | is already completed, according to the [idempotency store](Self::with_idempotency_store) | – | acknowledged without running the job |
///
/// Missing permissions are retried because an operator can grant them while the queue keeps the
/// messages. If a client may still be [connecting](crate::Connect::reply_address), the worker waits
/// for it, up to 30 seconds.
///
/// For a batch from SQS the worker returns a partial batch response that lists exactly the messages
/// to retry, so the event source mapping needs `ReportBatchItemFailures`. In a FIFO queue the
/// messages of the same group after a failed one are retried too. In a standard queue, message
/// groups affect only fairness, not order. From SNS and EventBridge, a failed job fails the
/// invocation.
///
/// Clones share all state. Configure a worker before you clone it.
///
/// See [partial batch responses](https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting).
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::Pusher;
/// use lambda_websocket::reply::{Keys, Task, Worker};
///
/// #[derive(serde::Deserialize)]
/// struct Sum {
///     numbers: Vec<u64>,
/// }
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), lambda_runtime::Error> {
///     let pusher = Pusher::from_env().await?;
///     let keys = Keys::new("2026", std::env::var("REPLY_KEY")?)?;
///     Worker::new(pusher, keys, |task: Task<Sum>| async move {
///         task.progress("begun").await?; // or `false`, when nobody waits any more
///         Ok(task.job.numbers.iter().sum::<u64>())
///     })
///     .run()
///     .await
/// }
/// ```
pub struct Worker<T, R> {
    shared: Arc<Shared<T, R>>,
}

struct Shared<T, R> {
    pushers: Pushers,
    trust: Trust,
    handler: Box<Handler<T, R>>,
    on_undelivered: Option<Box<OnUndelivered<R>>>,
    on_rejection: Option<Box<OnRejection>>,
    on_error: Option<Box<OnError>>,
    on_trace: Option<OnTrace>,
    errors: ErrorMap,
    format: ReplyFormat,
    max_receive_count: Option<u32>,
    store: Option<Box<dyn IdempotencyStore>>,
    concurrency: usize,
}

/// Which addresses the worker accepts.
enum Trust {
    /// Addresses that a key has sealed with their job.
    Bound(Keys),
    /// Addresses that a key has sealed, with their job or without one.
    MaybeUnbound(Keys),
    /// All addresses, without verification.
    Unsigned,
}

impl<T, R> Worker<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    /// Creates a worker that runs a function for each job sealed with these keys.
    ///
    /// If the pusher's [endpoint](crate::push::Endpoint::api) knows its API and stage, the pusher
    /// is not used for clients of others, because they would appear to be gone there; see
    /// [`with_pusher_for`](Self::with_pusher_for).
    pub fn new<F, Fut>(pusher: Pusher, keys: Keys, handler: F) -> Self
    where
        F: Fn(Task<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = route::Result<R>> + Send + 'static,
    {
        let handler = Box::new(move |task| Box::pin(handler(task)) as BoxFuture<_>);
        let shared = Shared {
            pushers: Pushers::new(pusher),
            trust: Trust::Bound(keys),
            handler,
            on_undelivered: None,
            on_rejection: None,
            on_error: None,
            on_trace: None,
            errors: ErrorMap::default(),
            format: ReplyFormat::default(),
            max_receive_count: None,
            store: None,
            concurrency: CONCURRENCY,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a pusher for the clients of one API and stage.
    ///
    /// If a client's endpoint does not know its [API and stage](crate::push::Endpoint::api), such
    /// as that of a custom domain in an address created by hand, the worker uses the pusher passed
    /// to [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_pusher_for(self, api_id: ApiId, stage: Stage, pusher: Pusher) -> Self {
        self.change(|shared| shared.pushers.add(api_id, stage, pusher))
    }

    /// Also accepts addresses that were sealed [without a job](super::ReplyAddress::seal_unbound).
    ///
    /// Anyone who can read such an address and write to the queue can send its client the result of
    /// any job. An address that was sealed with a job is still accepted with that job only.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_unbound_addresses(self) -> Self {
        self.change(|shared| {
            if let Trust::Bound(keys) = &shared.trust {
                shared.trust = Trust::MaybeUnbound(keys.clone());
            }
        })
    }

    /// Accepts all addresses, without verifying their signatures and jobs.
    ///
    /// Use it in tests, and for queues that nobody else can write to.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn without_signatures(self) -> Self {
        self.change(|shared| shared.trust = Trust::Unsigned)
    }

    /// Sets the maximum number of jobs that run concurrently. Default: 10. Minimum: 1.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_concurrency(self, jobs: usize) -> Self {
        self.change(|shared| shared.concurrency = jobs.max(1))
    }

    /// Runs each job once, even if its message is delivered several times. Default: no store.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_idempotency_store(self, store: impl IdempotencyStore + 'static) -> Self {
        self.change(|shared| shared.store = Some(Box::new(store)))
    }

    /// Sets a hook for results that cannot be delivered, for instance to store them.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_undelivered<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(Undelivered<R>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.change(|shared| shared.on_undelivered = Some(Box::new(move |result| Box::pin(hook(result)))))
    }

    /// Sets a hook for messages whose job the worker does not run.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_rejection(self, hook: impl Fn(&MessageRejection) + Send + Sync + 'static) -> Self {
        self.change(|shared| shared.on_rejection = Some(Box::new(hook)))
    }

    /// Sets a function to call with each job's span and trace.
    ///
    /// It works like [`Router::on_trace`](crate::Router::on_trace). The trace is that of the
    /// [address](super::ReplyAddress::trace) or, if it has none, the one in the SQS attribute
    /// `AWSTraceHeader`.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_trace(self, hook: impl Fn(&tracing::Span, TraceContext) + Send + Sync + 'static) -> Self {
        self.change(|shared| shared.on_trace = Some(Arc::new(hook)))
    }

    // A setting made after cloning would apply to one clone only, which is a bug in the program.
    #[track_caller]
    fn change(mut self, change: impl FnOnce(&mut Shared<T, R>)) -> Self {
        match Arc::get_mut(&mut self.shared) {
            Some(shared) => change(shared),
            None => panic!("configure a worker before cloning it"),
        }
        self
    }

    /// Runs the worker as a Lambda function.
    ///
    /// On Lambda Managed Instances several batches run concurrently.
    ///
    /// # Errors
    ///
    /// Returns an error if the process does not run in Lambda, or if the Lambda runtime ends with an
    /// error.
    pub async fn run(self) -> Result<(), lambda_runtime::Error> {
        check_environment()?;
        lambda_runtime::run_concurrent(self).await
    }
}

impl<T, R> Clone for Worker<T, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T, R> fmt::Debug for Worker<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("concurrency", &self.shared.concurrency).finish_non_exhaustive()
    }
}

impl<T, R> Service<LambdaEvent<Value>> for Worker<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    type Response = Option<SqsBatchResponse>;
    type Error = UnfinishedJob;
    type Future = BoxFuture<Result<Option<SqsBatchResponse>, UnfinishedJob>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UnfinishedJob>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: LambdaEvent<Value>) -> Self::Future {
        let worker = self.clone();
        let deadline = invocation(event.context).deadline;
        Box::pin(async move { worker.handle(event.payload, deadline).await })
    }
}
