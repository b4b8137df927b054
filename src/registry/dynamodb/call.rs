//! Requests: classification of their errors, and retries.

use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::delete_item::builders::DeleteItemFluentBuilder;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::error::ConditionalCheckFailedException;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem};

use super::super::RegistryError;
use super::DynamoDb;
use super::item::Record;
use crate::retry::{Attempts, Passing, Span};

const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The outcome of a conditional write.
pub(super) enum Written {
    /// The write succeeded; has the old item, if the request asks for it.
    Done(Option<Record>),
    /// The condition failed; has the current item, if there is one.
    Refused(Option<Record>),
}

/// The outcome of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Transaction {
    Done,
    /// A condition failed: another writer was faster.
    Stale,
}

impl DynamoDb {
    pub(super) fn span(&self) -> Span {
        Span::new(Some(self.timeout.unwrap_or(TIMEOUT)))
    }

    /// Retries until an attempt succeeds, its error is permanent, or there is no time left.
    pub(super) async fn retry<T, F>(
        &self,
        span: Span,
        timeout: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        Attempts { timeout, most: usize::MAX, random: &fastrand::f64 }.run(span, |_: &RegistryError| {}, attempt).await
    }

    pub(super) async fn call<T, E, F>(&self, span: Span, send: impl Fn() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let send = &send;
        let attempt = || async move { send().await.map_err(|error| self.meaning(error)) };
        self.retry(span, ATTEMPT_TIMEOUT, attempt).await
    }

    pub(super) async fn put(&self, span: Span, request: PutItemFluentBuilder) -> Result<Written, RegistryError> {
        let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let attempt = || async {
            let sent = request.clone().send().await.map(|done| done.attributes);
            self.written(sent, |error| match error {
                PutItemError::ConditionalCheckFailedException(refused) => Some(refused),
                _ => None,
            })
        };
        self.retry(span, ATTEMPT_TIMEOUT, attempt).await
    }

    pub(super) async fn update(&self, span: Span, request: UpdateItemFluentBuilder) -> Result<Written, RegistryError> {
        let request = request
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let attempt = || async {
            let sent = request.clone().send().await.map(|done| done.attributes);
            self.written(sent, |error| match error {
                UpdateItemError::ConditionalCheckFailedException(refused) => Some(refused),
                _ => None,
            })
        };
        self.retry(span, ATTEMPT_TIMEOUT, attempt).await
    }

    pub(super) async fn delete(&self, span: Span, request: DeleteItemFluentBuilder) -> Result<Written, RegistryError> {
        let request = request
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let attempt = || async {
            let sent = request.clone().send().await.map(|done| done.attributes);
            self.written(sent, |error| match error {
                DeleteItemError::ConditionalCheckFailedException(refused) => Some(refused),
                _ => None,
            })
        };
        self.retry(span, ATTEMPT_TIMEOUT, attempt).await
    }

    /// Returns the outcome of a conditional write; `refusal` finds a failed condition in an error.
    fn written<E>(
        &self,
        sent: Result<Option<Record>, SdkError<E, HttpResponse>>,
        refusal: impl Fn(&E) -> Option<&ConditionalCheckFailedException>,
    ) -> Result<Written, RegistryError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match sent {
            Ok(item) => Ok(Written::Done(item)),
            Err(error) => match error.as_service_error().and_then(refusal) {
                Some(refused) => Ok(Written::Refused(refused.item.clone())),
                None => Err(self.meaning(error)),
            },
        }
    }

    /// Makes all of these writes, or none.
    pub(super) async fn transact(
        &self,
        span: Span,
        writes: Vec<TransactWriteItem>,
    ) -> Result<Transaction, RegistryError> {
        // The token makes the transaction idempotent if a response is lost.
        let token = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let request = self.client.transact_write_items().set_transact_items(Some(writes)).client_request_token(token);
        let attempt = || async {
            match request.clone().send().await {
                Ok(_) => Ok(Transaction::Done),
                Err(error) => self.cancelled(error),
            }
        };
        self.retry(span, ATTEMPT_TIMEOUT, attempt).await
    }

    fn cancelled(&self, error: SdkError<TransactWriteItemsError, HttpResponse>) -> Result<Transaction, RegistryError> {
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
            return Err(self.meaning(error));
        };
        let is = |code: &str| cancelled.cancellation_reasons().iter().any(|reason| reason.code() == Some(code));
        if is("TransactionConflict") {
            Err(RegistryError::Contended)
        } else if is("ConditionalCheckFailed") {
            Ok(Transaction::Stale)
        } else if is("ThrottlingError") || is("ProvisionedThroughputExceeded") {
            Err(RegistryError::Throttled { source: Box::new(error) })
        } else {
            Err(RegistryError::Refused { source: Box::new(error) })
        }
    }

    /// Returns the existing items with these keys, at most a hundred, read consistently.
    pub(super) async fn read(&self, span: Span, keys: Vec<Record>) -> Result<Vec<Record>, RegistryError> {
        let mut found = Vec::new();
        let mut left = keys;
        while !left.is_empty() {
            let wanted = KeysAndAttributes::builder().set_keys(Some(left)).consistent_read(true).build();
            let wanted = wanted.map_err(|error| RegistryError::Refused { source: Box::new(error) })?;
            let request = self.client.batch_get_item().request_items(&*self.table, wanted);
            let mut answer = self.call(span, || request.clone().send()).await?;
            found
                .extend(answer.responses.take().and_then(|mut tables| tables.remove(&*self.table)).unwrap_or_default());
            let unprocessed = answer.unprocessed_keys.take().and_then(|mut tables| tables.remove(&*self.table));
            left = unprocessed.map(|keys| keys.keys).unwrap_or_default();
            if !left.is_empty() {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(10..100)).min(span.left())).await;
            }
        }
        Ok(found)
    }

    fn meaning<E>(&self, error: SdkError<E, HttpResponse>) -> RegistryError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        match error.code() {
            Some(
                "ProvisionedThroughputExceededException"
                | "RequestLimitExceeded"
                | "ThrottlingException"
                | "Throttling"
                | "LimitExceededException",
            ) => RegistryError::Throttled { source: Box::new(error) },
            Some("TransactionConflictException" | "TransactionInProgressException") => RegistryError::Contended,
            Some("ResourceNotFoundException") => RegistryError::NoTable { table: self.table.to_string() },
            Some(
                "AccessDeniedException"
                | "ExpiredTokenException"
                | "IncompleteSignatureException"
                | "InvalidSignatureException"
                | "MissingAuthenticationTokenException"
                | "UnrecognizedClientException",
            ) => RegistryError::Forbidden { source: Box::new(error) },
            _ if status.is_some_and(|status| status < 500) => RegistryError::Refused { source: Box::new(error) },
            // The store failed, or there is no response.
            _ => match &error {
                SdkError::ConstructionFailure(_) => RegistryError::Refused { source: Box::new(error) },
                _ => RegistryError::Unavailable { source: Box::new(error) },
            },
        }
    }
}

impl Passing for RegistryError {
    fn may_pass(&self) -> bool {
        self.is_retryable()
    }

    fn timed_out(after: Duration) -> Self {
        Self::TimedOut { after }
    }
}
