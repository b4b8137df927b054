//! A Lambda function that takes jobs from a queue and replies to the clients that asked.

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
pub use self::outcome::{JobFailure, MessageRejection, NotDone, Undelivered};
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

/// Runs a job for each message of a queue, and pushes its result to the client that asked.
///
/// The message is a [`Job`](super::Job) from SQS, SNS, SNS through SQS, or EventBridge, with or without SQS. The client gets
///
/// - `{"id":…,"progress":…}` for each [progress](Task::progress);
/// - at last `{"id":…,"result":…}` or `{"id":…,"error":{"code":…,"message":…}}`, in the [protocol](crate::route#the-reply-protocol) of
///   routers.
///
/// | the job | the client gets | the message |
/// |---|---|---|
/// | succeeds and its result is delivered | the result | is done |
/// | succeeds and its client has disconnected | – | is done; a [hook](Self::on_undelivered) gets the result |
/// | succeeds and its result has more than 128 KB, or fails to serialize as JSON | `too_large`, `internal` | is done: the same hook gets the result, and the log an error |
/// | succeeds and its result is refused with 400 | – | the same |
/// | succeeds and cannot be pushed now: throttled, unreachable, or the worker lacks a right (403) | – | is retried |
/// | returns an [`Error::client`](route::Error::client) | its code, text and details | is done |
/// | returns another error, or panics | – | is retried |
/// | the same, in its [last delivery](Self::with_max_receive_count) | `internal` | goes to the dead-letter queue |
/// | is not finished 500 ms before the invocation's deadline, or is killed | – | is retried |
/// | is in the dead-letter queue | `internal`, by the function of [`dead_letters`](Worker::dead_letters) | is done |
/// | cannot be read, has an address that cannot be trusted, or is for another API or stage | – | is not run but retried, and ends in the dead-letter queue; a [hook](Self::on_rejection) is called, and the log gets an error |
/// | has an address that has expired | – | is not run, and done; the same hook is called |
/// | is completed, as the [idempotency store](Self::with_idempotency_store) says | – | is not run again, and done |
///
/// Missing rights are retried because an operator can grant them while the messages are kept. A client that may still be about to
/// [connect](crate::Connect::reply_address) is waited for, up to 30 seconds.
///
/// Of a batch from SQS exactly the messages to be retried are reported, so the event source mapping needs
/// `ReportBatchItemFailures`. In a FIFO queue the messages after a failed one of the same group are retried too. In a
/// standard queue message groups are only a matter of fairness. From SNS and EventBridge a failed job fails the invocation.
///
/// Clones share everything, so a worker is set up before it is cloned.
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
/// struct Sum { numbers: Vec<u64> }
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

/// Which addresses are accepted.
enum Trust {
    /// Those that a key has sealed with their job.
    Bound(Keys),
    /// Those that a key has sealed with their job, or without one.
    MaybeUnbound(Keys),
    /// Any.
    Unsigned,
}

impl<T, R> Worker<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    /// Creates a worker that runs this function for each job that one of the keys has sealed.
    ///
    /// A pusher whose [endpoint](crate::push::Endpoint::api) knows its API and stage is not used for the clients of others, since
    /// those would seem to be gone there; see [`with_pusher_for`](Self::with_pusher_for).
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

    /// Pushes to the clients of this stage of this API through this pusher.
    ///
    /// A client whose endpoint does not know its [API and stage](crate::push::Endpoint::api), such as that of a custom domain in
    /// an address made by hand, is reached through the pusher of [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_pusher_for(self, api_id: ApiId, stage: Stage, pusher: Pusher) -> Self {
        self.change(|shared| shared.pushers.add(api_id, stage, pusher))
    }

    /// Accepts addresses that were sealed [without a job](super::ReplyAddress::seal_unbound), too.
    ///
    /// A person who can read such an address and write to the queue can send its client the result of any job. Addresses that
    /// were sealed with a job still belong to that job alone.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_unbound_addresses(self) -> Self {
        self.change(|shared| {
            if let Trust::Bound(keys) = &shared.trust {
                shared.trust = Trust::MaybeUnbound(keys.clone());
            }
        })
    }

    /// Accepts addresses that nobody has signed, and does not check signatures and jobs of others.
    ///
    /// For tests, and for queues that nobody else can write to.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn without_signatures(self) -> Self {
        self.change(|shared| shared.trust = Trust::Unsigned)
    }

    /// Runs up to this many jobs at a time. Default: 10; at least 1.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_concurrency(self, jobs: usize) -> Self {
        self.change(|shared| shared.concurrency = jobs.max(1))
    }

    /// Runs each job once, though its message may be delivered several times.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_idempotency_store(self, store: impl IdempotencyStore + 'static) -> Self {
        self.change(|shared| shared.store = Some(Box::new(store)))
    }

    /// Calls a hook with each result that cannot be delivered, for instance to store it.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_undelivered<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(Undelivered<R>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.change(|shared| shared.on_undelivered = Some(Box::new(move |result| Box::pin(hook(result)))))
    }

    /// Calls a hook with each message whose job the worker does not run.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_rejection(self, hook: impl Fn(&MessageRejection) + Send + Sync + 'static) -> Self {
        self.change(|shared| shared.on_rejection = Some(Box::new(hook)))
    }

    /// Calls a function with the span of each job and the trace that the job is a part of.
    ///
    /// As [`Router::on_trace`](crate::Router::on_trace). The trace is that of the [address](super::ReplyAddress::trace), or else the one that SQS
    /// names in the attribute `AWSTraceHeader`.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_trace(self, hook: impl Fn(&tracing::Span, TraceContext) + Send + Sync + 'static) -> Self {
        self.change(|shared| shared.on_trace = Some(Arc::new(hook)))
    }

    // What is set up after the worker was cloned would hold for one of the clones: it is a mistake of the program.
    #[track_caller]
    fn change(mut self, change: impl FnOnce(&mut Shared<T, R>)) -> Self {
        match Arc::get_mut(&mut self.shared) {
            Some(shared) => change(shared),
            None => panic!("a worker is set up before it is cloned"),
        }
        self
    }

    /// Runs the worker as a Lambda function.
    ///
    /// On Lambda Managed Instances several batches run at a time.
    ///
    /// # Errors
    ///
    /// When the process does not run in Lambda, and when the Lambda runtime ends with an error.
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
    type Error = NotDone;
    type Future = BoxFuture<Result<Option<SqsBatchResponse>, NotDone>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotDone>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: LambdaEvent<Value>) -> Self::Future {
        let worker = self.clone();
        let deadline = invocation(event.context).deadline;
        Box::pin(async move { worker.handle(event.payload, deadline).await })
    }
}
