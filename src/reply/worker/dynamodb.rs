//! An idempotency store in a DynamoDB table, for workers in several processes.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::{Claim, IdempotencyStore, LeaseOwner};
use crate::clock;
use crate::dynamodb::{self, BoxError, Retries};
use crate::reply::IdempotencyKey;

const LEASE: Duration = Duration::from_secs(15 * 60);
const MEMORY: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const KEY: &str = "idempotencyKey";
/// The owner of the lease. A completed job has none.
const OWNER: &str = "leaseOwner";
const EXPIRES: &str = "expiresAt";

/// Stores in a DynamoDB table which jobs are completed.
///
/// The table has the string `idempotencyKey` as its partition key and `expiresAt` as its
/// time-to-live attribute, so that DynamoDB removes old items. The function needs
/// `dynamodb:PutItem` and `dynamodb:DeleteItem` on it. Each job takes two writes.
///
/// # Examples
///
/// ```no_run
/// use lambda_websocket::reply::DynamoDb;
/// use std::time::Duration;
///
/// # async fn start() {
/// let store =
///     DynamoDb::new("idempotency").await.with_lease(Duration::from_secs(60));
/// # }
/// ```
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
    lease: Duration,
    memory: Duration,
}

impl DynamoDb {
    /// Creates a store with the environment's credentials, region, and endpoint.
    pub async fn new(table: impl Into<String>) -> Self {
        Self::over(table, dynamodb::client(Retries::Sdk).await)
    }

    /// Creates a store with an AWS configuration.
    ///
    /// It uses the configuration's credentials, region, endpoint, HTTP client, timeouts, and number
    /// of retries, as [`registry::DynamoDb::from_config`](crate::registry::DynamoDb::from_config)
    /// does. Default timeout of a request: 15 seconds.
    pub fn from_config(table: impl Into<String>, config: &SdkConfig) -> Self {
        Self::over(table, dynamodb::from_config(config, Retries::Sdk))
    }

    /// Creates a store in an emulator at this URL, which accepts any credentials.
    pub async fn with_endpoint_url(table: impl Into<String>, url: impl Into<String>) -> Self {
        Self::over(table, dynamodb::with_endpoint_url(url, Retries::Sdk).await)
    }

    fn over(table: impl Into<String>, client: Client) -> Self {
        Self { client, table: table.into(), lease: LEASE, memory: MEMORY }
    }

    /// Sets how long a lease lasts. Default: 15 minutes, the maximum duration of an invocation.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long completed jobs are remembered.
    ///
    /// Default: 14 days, the maximum retention period of a queue.
    #[must_use]
    pub fn with_memory(mut self, memory: Duration) -> Self {
        self.memory = memory;
        self
    }

    /// Creates the table unless it exists, for tests and emulators.
    ///
    /// # Errors
    ///
    /// Returns an error if DynamoDB rejects the request or cannot be reached.
    pub async fn create_table(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        dynamodb::create_store(&self.client, &self.table, KEY, EXPIRES).await
    }
}

/// Returns the Unix time this far ahead, rounded up so that nothing expires early.
fn expiry(ahead: Duration) -> AttributeValue {
    let end = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(ahead);
    let seconds = end.as_secs().saturating_add(u64::from(end.subsec_nanos() > 0));
    AttributeValue::N(seconds.to_string())
}

fn now() -> AttributeValue {
    AttributeValue::N(clock::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string())
}

#[async_trait]
impl IdempotencyStore for DynamoDb {
    async fn acquire(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<Claim, BoxError> {
        let acquired = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(KEY, AttributeValue::S(key.to_string()))
            .item(OWNER, AttributeValue::S(owner.as_str().to_owned()))
            .item(EXPIRES, expiry(self.lease))
            // DynamoDB removes expired items late, so the condition checks the time too. The SDK
            // retries a request whose response was lost: the lease that it then finds may be this
            // owner's own.
            .condition_expression("attribute_not_exists(#key) OR #expires <= :now OR #owner = :me")
            .expression_attribute_names("#key", KEY)
            .expression_attribute_names("#expires", EXPIRES)
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":now", now())
            .expression_attribute_values(":me", AttributeValue::S(owner.as_str().to_owned()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let error = match acquired {
            Ok(_) => return Ok(Claim::Acquired),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(found)) => {
                let is_leased = found.item().is_none_or(|item| item.contains_key(OWNER));
                Ok(if is_leased { Claim::InProgress } else { Claim::Completed })
            }
            _ => Err(error.into()),
        }
    }

    async fn complete(&self, key: &IdempotencyKey) -> Result<(), BoxError> {
        self.client
            .put_item()
            .table_name(&self.table)
            .item(KEY, AttributeValue::S(key.to_string()))
            .item(EXPIRES, expiry(self.memory))
            .send()
            .await?;
        Ok(())
    }

    async fn release(&self, key: &IdempotencyKey, owner: &LeaseOwner) -> Result<(), BoxError> {
        let released = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(KEY, AttributeValue::S(key.to_string()))
            // An expired lease may have been acquired by another owner.
            .condition_expression("#owner = :me")
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":me", AttributeValue::S(owner.as_str().to_owned()))
            .send()
            .await;
        match released {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Omits the client, which holds credentials.
impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("table", &self.table).field("lease", &self.lease).finish_non_exhaustive()
    }
}
