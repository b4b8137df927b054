//! What a worker does about jobs that fail.

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{JobFailure, Worker};
use crate::push::Pusher;
use crate::reply::Keys;
use crate::route::failure::INTERNAL;
use crate::route::{Error, ErrorCode, ReplyFormat};

impl<T, R> Worker<T, R>
where
    T: DeserializeOwned + Send + Sync + 'static,
    R: Serialize + Send + Sync + 'static,
{
    /// Tells the client `internal` when a job fails in the last delivery before the dead-letter queue.
    ///
    /// `n` is the `maxReceiveCount` of the queue's redrive policy. The message is reported as failed all the same, so that it gets
    /// into the dead-letter queue. Default: the client of a job that fails again and again is never told.
    ///
    /// SQS counts deliveries; SNS and EventBridge do not, so there this has no effect. A worker that is killed, or runs out of time, in
    /// the last delivery tells nobody, and neither does one whose job another worker is running: only the
    /// [function of the dead-letter queue](Worker::dead_letters) knows of those. Where both are used, give both the same
    /// [idempotency store](Self::with_idempotency_store), so that each client is told once. A job that was given up then counts as completed:
    /// to run it after all, seal it anew.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_max_receive_count(self, n: u32) -> Self {
        self.change(|shared| shared.max_receive_count = Some(n))
    }

    /// Says what errors of your own type are to the client, as [`Router::map_error`](crate::Router::map_error) does.
    ///
    /// An error that becomes one [for the client](Error::client) is final; any other is retried.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn map_error<E: std::error::Error + 'static>(
        self,
        map: impl Fn(&E) -> Option<Error> + Send + Sync + 'static,
    ) -> Self {
        self.change(|shared| shared.errors.add(map))
    }

    /// Calls a hook with each job that has failed, whether or not it is retried. The client has been told by then.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_error<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(JobFailure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.change(|shared| shared.on_error = Some(Box::new(move |failure| Box::pin(hook(failure)))))
    }

    /// Names the members of replies differently, as [`Router::reply_format`](crate::Router::reply_format) does.
    ///
    /// # Panics
    ///
    /// When the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn reply_format(self, format: ReplyFormat) -> Self {
        self.change(|shared| shared.format = format)
    }
}

impl Worker<IgnoredAny, ()> {
    /// Creates the worker of a dead-letter queue: it tells each client `internal`, and the message is done.
    ///
    /// It takes the messages out of the queue; keep what you need of them in [`on_error`](Self::on_error). For a text of your own
    /// make a worker whose jobs all fail for good:
    ///
    /// ```
    /// use lambda_websocket::Pusher;
    /// use lambda_websocket::reply::{Keys, Task, Worker};
    /// use lambda_websocket::route::{Error, ErrorCode};
    /// use serde::de::IgnoredAny;
    ///
    /// # fn worker(pusher: Pusher, keys: Keys) -> Worker<IgnoredAny, ()> {
    /// Worker::new(pusher, keys, |_: Task<IgnoredAny>| async {
    ///     Err(Error::client(ErrorCode::INTERNAL, "the report failed; we are looking into it"))
    /// })
    /// # }
    /// ```
    pub fn dead_letters(pusher: Pusher, keys: Keys) -> Self {
        Self::new(pusher, keys, |_| async { Err(Error::client(ErrorCode::INTERNAL, INTERNAL)) })
    }
}
