//! Token buckets in a DynamoDB table.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::bucket::Bucket;
use super::store::Buckets;
use super::{Quota, RateLimitStore};
use crate::clock;
use crate::dynamodb::{self, BoxError, Retries};

const KEY: &str = "rateLimitKey";
/// The time when the bucket is full again, in microseconds since 1970.
const FULL_AT: &str = "fullAt";
/// A random id for the attempt that took the last token.
const TAKER: &str = "takenBy";
const EXPIRES: &str = "expiresAt";
/// The maximum number of write attempts. Each failed attempt means that another caller took a
/// token, so after this many conflicts the client has exceeded its quota.
const ATTEMPTS: u32 = 10;

/// Keeps token buckets in a DynamoDB table.
///
/// The table has the string `rateLimitKey` as its partition key, and `expiresAt` as its
/// time-to-live attribute. The function needs `dynamodb:PutItem` on it. Taking a token costs one
/// write, and another one each time another caller has taken one in the meantime. A client that is
/// known to exceed the limit costs none: a bucket never fills earlier than this process expects.
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
    /// The last known state of the buckets. Other processes may have taken more tokens since.
    known: Arc<Mutex<Buckets>>,
}

impl DynamoDb {
    /// Creates a store in this table, with credentials, region, and endpoint from the environment.
    pub async fn new(table: impl Into<String>) -> Self {
        Self::over(table, dynamodb::client(Retries::Sdk).await)
    }

    /// Creates a store in this table, with an AWS SDK configuration.
    ///
    /// Credentials, region, endpoint, HTTP client, timeouts, and retries are those of the
    /// configuration. Default operation timeout: 15 seconds. See
    /// [`registry::DynamoDb::from_config`](crate::registry::DynamoDb::from_config).
    pub fn from_config(table: impl Into<String>, config: &SdkConfig) -> Self {
        Self::over(table, dynamodb::from_config(config, Retries::Sdk))
    }

    /// Creates a store in a table of an emulator at this URL, with placeholder credentials.
    pub async fn with_endpoint_url(table: impl Into<String>, url: impl Into<String>) -> Self {
        Self::over(table, dynamodb::with_endpoint_url(url, Retries::Sdk).await)
    }

    fn over(table: impl Into<String>, client: Client) -> Self {
        Self { client, table: table.into(), known: Arc::default() }
    }

    /// Creates the table if it does not exist, for tests and emulators.
    ///
    /// # Errors
    ///
    /// Returns an error if DynamoDB rejects the request or cannot be reached.
    pub async fn create_table(&self) -> Result<(), BoxError> {
        dynamodb::create_store(&self.client, &self.table, KEY, EXPIRES).await
    }

    fn known(&self) -> MutexGuard<'_, Buckets> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the bucket in the table, or returns the current one if it has changed.
    async fn replace(
        &self,
        key: &str,
        before: Bucket,
        after: Bucket,
        now: SystemTime,
    ) -> Result<Option<Bucket>, BoxError> {
        let number = |bucket: Bucket| AttributeValue::N(bucket.0.to_string());
        let (now, taker) = (Bucket::full_at(now), format!("{:032x}", fastrand::u128(..)));
        // A bucket that is full by now can be replaced like a missing one.
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(KEY, AttributeValue::S(key.to_owned()))
            .item(FULL_AT, number(after))
            .item(TAKER, AttributeValue::S(taker.clone()))
            .item(EXPIRES, AttributeValue::N((after.0 / 1_000_000).saturating_add(60).to_string()))
            .condition_expression("attribute_not_exists(#key) OR #fullAt <= :now OR #fullAt = :before")
            .expression_attribute_names("#key", KEY)
            .expression_attribute_names("#fullAt", FULL_AT)
            .expression_attribute_values(":now", number(if before > now { Bucket::default() } else { now }))
            .expression_attribute_values(":before", number(before))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match put {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(found)) => {
                    let attribute = |name| found.item().and_then(|item| item.get(name));
                    // The SDK retries a request whose response was lost, and may then find its own
                    // item.
                    if attribute(TAKER).and_then(|value| value.as_s().ok()) == Some(&taker) {
                        return Ok(None);
                    }
                    let found = attribute(FULL_AT).and_then(|value| value.as_n().ok()?.parse().ok());
                    Ok(Some(Bucket(found.ok_or("an item of the rate limit has no number `fullAt`")?)))
                }
                _ => Err(error.into()),
            },
        }
    }
}

#[async_trait]
impl RateLimitStore for DynamoDb {
    async fn take(&self, key: &str, quota: Quota) -> Result<Option<Duration>, BoxError> {
        let mut before = self.known().get(key);
        for attempt in 0..ATTEMPTS {
            // Other callers take tokens of the same client concurrently: random pauses keep them
            // apart.
            if attempt > 0 {
                let pause = u64::from(attempt).saturating_mul(fastrand::u64(0..5));
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let now = clock::now();
            let after = match before.take(quota, now) {
                Ok(after) => after,
                Err(wait) => return Ok(Some(wait)),
            };
            let other = self.replace(key, before, after, now).await?;
            let current = other.unwrap_or(after);
            self.known().set(key, current, now);
            match other {
                None => return Ok(None),
                Some(other) => before = other,
            }
        }
        Ok(Some(quota.interval))
    }
}

/// Leaves out the client, which holds credentials.
impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("table", &self.table).finish_non_exhaustive()
    }
}
