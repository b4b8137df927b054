//! How a worker handles jobs that fail.

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
    /// Sends `internal` to the client if a job fails in its last delivery.
    ///
    /// `n` is the `maxReceiveCount` of the queue's redrive policy. The message is still reported as
    /// failed, so that it moves to the dead-letter queue. Default: the client of a job that keeps
    /// failing is never told.
    ///
    /// SQS counts deliveries. SNS and EventBridge do not, so this setting has no effect there. The
    /// client is not told either if, in the last delivery, the worker is killed or runs out of
    /// time, or another worker is running the job: only the [function of the dead-letter
    /// queue](Worker::dead_letters) handles these cases. If you use this setting and that function,
    /// give both workers the same [idempotency store](Self::with_idempotency_store), so that each
    /// client is told once. A job that was given up then counts as completed: to run it again, seal
    /// it again.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn with_max_receive_count(self, n: u32) -> Self {
        self.change(|shared| shared.max_receive_count = Some(n))
    }

    /// Maps your own error type to errors for the client.
    ///
    /// It works like [`Router::map_error`](crate::Router::map_error). An error mapped to one [for
    /// the client](Error::client) is final; jobs with any other error are retried.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn map_error<E: std::error::Error + 'static>(
        self,
        map: impl Fn(&E) -> Option<Error> + Send + Sync + 'static,
    ) -> Self {
        self.change(|shared| shared.errors.add(map))
    }

    /// Sets a hook for each job that has failed, whether or not it is retried.
    ///
    /// If the failure is final, the hook is called after the client has been told.
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn on_error<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(JobFailure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.change(|shared| shared.on_error = Some(Box::new(move |failure| Box::pin(hook(failure)))))
    }

    /// Sets the member names of replies.
    ///
    /// It works like [`Router::reply_format`](crate::Router::reply_format).
    ///
    /// # Panics
    ///
    /// Panics if the worker has been cloned.
    #[must_use]
    #[track_caller]
    pub fn reply_format(self, format: ReplyFormat) -> Self {
        self.change(|shared| shared.format = format)
    }
}

impl Worker<IgnoredAny, ()> {
    /// Creates the worker of a dead-letter queue, which sends each client `internal`.
    ///
    /// It acknowledges the messages, which removes them from the queue; save what you need of them
    /// in [`on_error`](Self::on_error). To send a custom message, create a worker whose jobs all
    /// return an error for the client:
    ///
    /// ```
    /// use lambda_websocket::Pusher;
    /// use lambda_websocket::reply::{Keys, Task, Worker};
    /// use lambda_websocket::route::{Error, ErrorCode};
    /// use serde::de::IgnoredAny;
    ///
    /// # fn worker(pusher: Pusher, keys: Keys) -> Worker<IgnoredAny, ()> {
    /// Worker::new(pusher, keys, |_: Task<IgnoredAny>| async {
    ///     Err(Error::client(
    ///         ErrorCode::INTERNAL,
    ///         "the report failed; we are looking into it",
    ///     ))
    /// })
    /// # }
    /// ```
    pub fn dead_letters(pusher: Pusher, keys: Keys) -> Self {
        Self::new(pusher, keys, |_| async { Err(Error::client(ErrorCode::INTERNAL, INTERNAL)) })
    }
}
