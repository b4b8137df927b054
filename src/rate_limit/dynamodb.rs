//! Token buckets in a table of DynamoDB.

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
/// When the bucket is full again, in microseconds since 1970.
const FULL_AT: &str = "fullAt";
/// Who has taken the last token: the name of one attempt.
const TAKER: &str = "takenBy";
const EXPIRES: &str = "expiresAt";
/// After so many others were faster, the client is too fast. Each of them has taken a token.
const ATTEMPTS: u32 = 10;

/// Keeps token buckets in a table of DynamoDB.
///
/// The table has the string `rateLimitKey` as its partition key, and `expiresAt` as its time-to-live attribute. The function needs
/// `dynamodb:PutItem` on it. Taking a token costs one write, and a second one when another process has taken one since. A client that is
/// known to be too fast costs none: buckets never fill earlier than this process knows.
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
    /// What this process knows of the buckets. Others may have taken more since.
    known: Arc<Mutex<Buckets>>,
}

impl DynamoDb {
    /// Creates a store over this table, with credentials, region and endpoint of the environment.
    pub async fn new(table: impl Into<String>) -> Self {
        Self::over(table, dynamodb::client(Retries::Sdk).await)
    }

    /// Creates a store over this table, with credentials, region, endpoint, HTTP client, and timeouts of this configuration.
    ///
    /// As [`registry::DynamoDb::from_config`](crate::registry::DynamoDb::from_config). Requests have at most 15 seconds, unless it says
    /// otherwise, and its number of retries.
    pub fn from_config(table: impl Into<String>, config: &SdkConfig) -> Self {
        Self::over(table, dynamodb::from_config(config, Retries::Sdk))
    }

    /// Creates a store over a table of an emulator at this URL, which takes any credentials.
    pub async fn with_endpoint_url(table: impl Into<String>, url: impl Into<String>) -> Self {
        Self::over(table, dynamodb::with_endpoint_url(url, Retries::Sdk).await)
    }

    fn over(table: impl Into<String>, client: Client) -> Self {
        Self { client, table: table.into(), known: Arc::default() }
    }

    /// Creates the table, for tests and emulators, unless it exists.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses the request, or cannot be reached.
    pub async fn create_table(&self) -> Result<(), BoxError> {
        dynamodb::create_store(&self.client, &self.table, KEY, EXPIRES).await
    }

    fn known(&self) -> MutexGuard<'_, Buckets> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the bucket in the table, and returns the one that is there instead if that is another.
    async fn replace(
        &self,
        key: &str,
        before: Bucket,
        after: Bucket,
        now: SystemTime,
    ) -> Result<Option<Bucket>, BoxError> {
        let number = |bucket: Bucket| AttributeValue::N(bucket.0.to_string());
        let (now, taker) = (Bucket::full_at(now), format!("{:032x}", fastrand::u128(..)));
        // A bucket that is full by now is as good as none.
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
                    // The SDK repeats a request whose answer was lost: what it finds then is its own.
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
            // Others take tokens of the same client at the same time: each waits for a while of its own.
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
