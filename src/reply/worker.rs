//! A Lambda function that takes jobs from a queue and answers those who asked.

#[cfg(feature = "dynamodb")]
mod dynamodb;
mod incoming;
mod once;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use aws_lambda_events::sqs::SqsBatchResponse;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use lambda_runtime::{Diagnostic, LambdaEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use tower_service::Service;

#[cfg(feature = "dynamodb")]
pub use self::dynamodb::DynamoDb;
use self::incoming::{Delivered, Incoming};
pub use self::once::{Claim, InMemory, Once};
pub use self::task::Task;
use super::{InvalidAddress, Keys, ReplyAddress};
use crate::clock;
use crate::event::{CorrelationId, within_deadline};
use crate::push::{Payload, PushError, Pusher};
use crate::runtime::{check_environment, invocation};

/// What is left of the invocation to say which jobs are not done.
const MARGIN: Duration = Duration::from_millis(500);
/// What of it may go into giving up the claims of jobs that are not finished.
const RELEASE: Duration = Duration::from_millis(250);
const CONCURRENCY: usize = 10;

type BoxError = Box<dyn StdError + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Handler<T, R> = dyn Fn(Task<T>) -> BoxFuture<Result<R, BoxError>> + Send + Sync;
type OnUnanswered<R> = dyn Fn(Unanswered<R>) -> BoxFuture<()> + Send + Sync;
type OnUndecodable = dyn Fn(&Undecodable) + Send + Sync;

/// Runs a job for each message of a queue, and pushes its result to the client that asked.
///
/// The message is a [`Job`](super::Job) from SQS, SNS, SNS through SQS, or EventBridge, with or without SQS. The client gets
/// `{"correlationId": "…", "result": …}`, and `{"correlationId": "…", "progress": …}` for each [progress](Task::progress).
///
/// | the job | the message |
/// |---|---|
/// | succeeds and its result is delivered | is done |
/// | succeeds and its client is gone | is done; a [hook](Self::on_unanswered) gets the result |
/// | fails, panics, or its result cannot be delivered | comes again |
/// | is not finished before the invocation's deadline | comes again |
/// | cannot be read, or its address is not to be trusted | comes again, and ends in the dead-letter queue; a [hook](Self::on_undecodable) is told |
/// | has an address that has expired | is done, and was not begun; the same hook is told |
///
/// Of a batch from SQS exactly the messages that must come again are reported, so the event source mapping needs
/// `ReportBatchItemFailures`. In a FIFO queue the messages after a failed one of the same group come again too. From SNS and
/// EventBridge a failed job fails the invocation.
///
/// Clones share everything, so a worker is set up before it is cloned: its methods that set it up panic afterwards.
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
    pusher: Pusher,
    keys: Option<Keys>,
    handler: Box<Handler<T, R>>,
    unanswered: Option<Box<OnUnanswered<R>>>,
    undecodable: Option<Box<OnUndecodable>>,
    once: Option<Box<dyn Once>>,
    concurrency: usize,
}

/// A result whose client is gone.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unanswered<R> {
    /// Which question it answers.
    pub correlation_id: CorrelationId,
    /// The result.
    pub result: R,
}

/// A message that is no job for this worker. It quotes nothing of the message, so it may be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// It is not the JSON of the job.
    #[error("the message {message_id} is not a job: expected {expected}")]
    NotAJob {
        /// The message.
        message_id: String,
        /// What was expected.
        expected: &'static str,
    },
    /// Its address is not to be used.
    #[error("the message {message_id} says nowhere to answer to")]
    Address {
        /// The message.
        message_id: String,
        /// What is wrong with it.
        source: InvalidAddress,
    },
}

/// The invocation has to be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotDone {
    /// The event comes from neither SQS nor SNS nor EventBridge.
    #[error("the event is of another kind: expected one of SQS, SNS or EventBridge")]
    Event,
    /// A job is not done, and its source does not know partial failures.
    #[error("a job is not done: {reason}")]
    Job {
        /// Why not.
        reason: String,
    },
}

/// The questions that jobs under way have claimed.
type Claims = Mutex<BTreeSet<CorrelationId>>;

/// What became of one message.
enum Outcome {
    Done,
    Again(String),
}

impl Outcome {
    fn panicked() -> Self {
        Self::Again("the job panicked".to_owned())
    }
}

impl<T, R> Worker<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    /// A worker that runs this function for each job whose address one of the keys has signed.
    ///
    /// It pushes through this pusher, whatever endpoint the address names: a worker serves one API.
    pub fn new<F, Fut>(pusher: Pusher, keys: Keys, handler: F) -> Self
    where
        F: Fn(Task<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        let handler = Box::new(move |task| Box::pin(handler(task)) as BoxFuture<_>);
        let (unanswered, undecodable, once) = (None, None, None);
        let shared =
            Shared { pusher, keys: Some(keys), handler, unanswered, undecodable, once, concurrency: CONCURRENCY };
        Self { shared: Arc::new(shared) }
    }

    /// Takes addresses that nobody has signed too.
    ///
    /// For queues that nobody else can write to.
    #[must_use]
    pub fn without_signatures(self) -> Self {
        self.change(|shared| shared.keys = None)
    }

    /// Runs up to this many jobs at a time; it is 10 unless set, and at least 1.
    #[must_use]
    pub fn with_concurrency(self, jobs: usize) -> Self {
        self.change(|shared| shared.concurrency = jobs.max(1))
    }

    /// Answers each question once, though its message may come several times.
    #[must_use]
    pub fn once(self, once: impl Once + 'static) -> Self {
        self.change(|shared| shared.once = Some(Box::new(once)))
    }

    /// Takes results whose client is gone, for instance to store them.
    #[must_use]
    pub fn on_unanswered<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(Unanswered<R>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.change(|shared| shared.unanswered = Some(Box::new(move |gone| Box::pin(hook(gone)))))
    }

    /// Hears of messages that are no jobs.
    #[must_use]
    pub fn on_undecodable(self, hook: impl Fn(&Undecodable) + Send + Sync + 'static) -> Self {
        self.change(|shared| shared.undecodable = Some(Box::new(hook)))
    }

    /// What is set up after the worker was cloned would hold for one of them: it is a mistake of the program.
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
    /// # Errors
    ///
    /// When the process does not run in Lambda, and when the Lambda runtime ends with an error.
    pub async fn run(self) -> Result<(), lambda_runtime::Error> {
        check_environment()?;
        lambda_runtime::run(self).await
    }

    /// Works on one event until this deadline: the answer to SQS, or nothing for the other sources.
    ///
    /// # Errors
    ///
    /// [`NotDone`] when the whole event has to come again.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its timer enabled.
    pub async fn handle(&self, event: Value, deadline: SystemTime) -> Result<Option<SqsBatchResponse>, NotDone> {
        let Incoming { is_sqs, messages } = Incoming::read(event)?;
        // What is still in here when the time is up comes again.
        let late = || "there was no time for it".to_owned();
        let open = messages.iter().enumerate().map(|(index, message)| (index, (message.message_id.clone(), late())));
        let open: Mutex<BTreeMap<usize, (String, String)>> = Mutex::new(open.collect());
        let lock = || open.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = Claims::default();
        let work = stream::iter(in_groups(messages)).for_each_concurrent(self.shared.concurrency, |group| async {
            for (index, message) in group {
                // A panic of a hook or of the guard is the message's alone, too.
                let work = AssertUnwindSafe(self.shared.work_on(message, &claims)).catch_unwind().await;
                match work.unwrap_or_else(|_| Outcome::panicked()) {
                    Outcome::Done => drop(lock().remove(&index)),
                    // What follows in the group waits for it.
                    Outcome::Again(reason) => {
                        if let Some((message_id, why)) = lock().get_mut(&index) {
                            tracing::warn!(%message_id, %reason, "the job comes again");
                            *why = reason;
                        }
                        return;
                    }
                }
            }
        });
        let left = deadline.duration_since(clock::now()).unwrap_or_default().saturating_sub(MARGIN);
        if timeout(left, within_deadline(deadline, work)).await.is_err() {
            // Others need not wait until the claims end by themselves.
            let _ = timeout(RELEASE, self.shared.release(claims)).await;
        }
        let open = std::mem::take(&mut *lock());
        match open.into_values().collect::<Vec<_>>() {
            open if is_sqs => {
                let mut response = SqsBatchResponse::default();
                response.set_failures(open.into_iter().map(|(message_id, _)| message_id));
                Ok(Some(response))
            }
            open => match open.into_iter().next() {
                None => Ok(None),
                Some((_, reason)) => Err(NotDone::Job { reason }),
            },
        }
    }
}

/// The messages of a FIFO queue's group one after the other; all others by themselves.
fn in_groups(messages: Vec<Delivered>) -> Vec<Vec<(usize, Delivered)>> {
    let mut groups: Vec<Vec<(usize, Delivered)>> = Vec::new();
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for (index, message) in messages.into_iter().enumerate() {
        let known = message.group.as_ref().and_then(|name| by_name.get(name)).copied();
        match known.and_then(|at| groups.get_mut(at)) {
            Some(group) => group.push((index, message)),
            None => {
                if let Some(name) = &message.group {
                    by_name.insert(name.clone(), groups.len());
                }
                groups.push(vec![(index, message)]);
            }
        }
    }
    groups
}

impl<T, R> Shared<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    async fn work_on(&self, message: Delivered, claims: &Claims) -> Outcome {
        let message_id = message.message_id.clone();
        let (sealed, job) = match message.job::<T>() {
            Ok(job) => job,
            Err(error) => {
                // The error itself quotes what it found.
                let expected = if error.is_data() { "what the worker takes, with its address" } else { "JSON" };
                return self.refuse(Undecodable::NotAJob { message_id, expected });
            }
        };
        let now = clock::now();
        let opened = match &self.keys {
            Some(keys) => sealed.open(keys, now),
            None => sealed.open_unchecked(now),
        };
        let address = match opened {
            Ok(address) => Arc::new(address),
            Err(source) => return self.refuse(Undecodable::Address { message_id, source }),
        };
        self.answer(address, job, claims).await
    }

    fn refuse(&self, undecodable: Undecodable) -> Outcome {
        if let Some(hook) = &self.undecodable {
            hook(&undecodable);
        }
        match &undecodable {
            // It does not become younger.
            Undecodable::Address { source: InvalidAddress::Expired { .. }, .. } => Outcome::Done,
            _ => Outcome::Again(chain(&undecodable)),
        }
    }

    async fn answer(&self, address: Arc<ReplyAddress>, job: T, claims: &Claims) -> Outcome {
        let id = address.correlation_id();
        let claim = match &self.once {
            None => Ok(Claim::First),
            Some(once) => once.claim(id).await,
        };
        match claim {
            Ok(Claim::First) => {}
            Ok(Claim::Answered) => return Outcome::Done,
            Ok(Claim::Elsewhere) => return Outcome::Again("another worker is at it".to_owned()),
            Err(error) => return Outcome::Again(chain(&*error)),
        }
        let lock = || claims.lock().unwrap_or_else(PoisonError::into_inner);
        lock().insert(id.clone());
        let outcome = AssertUnwindSafe(self.run_and_push(&address, job)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::panicked());
        if let Some(once) = &self.once {
            let noted = match &outcome {
                Outcome::Done => once.answered(id).await,
                Outcome::Again(_) => once.release(id).await,
            };
            if let Err(error) = noted {
                // The claim ends by itself; what was answered may be answered once more.
                tracing::warn!(correlation_id = %id, error = %chain(&*error), "the outcome could not be noted");
            }
        }
        lock().remove(id);
        outcome
    }

    async fn release(&self, claims: Claims) {
        let Some(once) = &self.once else { return };
        let claims = claims.into_inner().unwrap_or_else(PoisonError::into_inner);
        let releases = claims.iter().map(|id| once.release(id));
        for error in join_all(releases).await.into_iter().filter_map(Result::err) {
            tracing::warn!(error = %chain(&*error), "a claim could not be given up");
        }
    }

    async fn run_and_push(&self, address: &Arc<ReplyAddress>, job: T) -> Outcome {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer<'a, R> {
            correlation_id: &'a CorrelationId,
            result: &'a R,
        }
        let task = Task::new(job, Arc::clone(address), self.pusher.clone());
        let result = match (self.handler)(task).await {
            Ok(result) => result,
            Err(error) => return Outcome::Again(chain(&*error)),
        };
        let correlation_id = address.correlation_id();
        let payload = match Payload::json(&Answer { correlation_id, result: &result }) {
            Ok(payload) => payload,
            Err(error) => return Outcome::Again(chain(&error)),
        };
        match self.pusher.send_payload(address.connection_id(), &payload).await {
            Ok(()) => Outcome::Done,
            Err(PushError::Gone { .. }) => {
                if let Some(hook) = &self.unanswered {
                    hook(Unanswered { correlation_id: correlation_id.clone(), result }).await;
                }
                Outcome::Done
            }
            Err(error) => Outcome::Again(chain(&error)),
        }
    }
}

/// An error with its sources, as one text.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
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

impl From<NotDone> for Diagnostic {
    fn from(error: NotDone) -> Self {
        Self { error_type: "lambda_websocket::NotDone".to_owned(), error_message: chain(&error) }
    }
}
