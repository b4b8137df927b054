//! Answering once, where workers run in many places: in a table of DynamoDB.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{AttributeValue, BillingMode, KeyType, ReturnValuesOnConditionCheckFailure};

use super::{Claim, Once};
use crate::dynamodb::{self, BoxError, Retries};
use crate::event::CorrelationId;

const LEASE: Duration = Duration::from_secs(15 * 60);
const MEMORY: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const KEY: &str = "correlationId";
const OWNER: &str = "owner";
const EXPIRES: &str = "expiresAt";
/// What is the owner of a question that has been answered.
const ANSWERED: &str = "answered";

/// Remembers in a table of DynamoDB which questions have been answered.
///
/// The table has the string `correlationId` as its partition key, and `expiresAt` as its time-to-live attribute, by which
/// DynamoDB removes what is old. The function needs `dynamodb:PutItem` and `dynamodb:DeleteItem` on it. A question takes two
/// writes.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use lambda_websocket::reply::DynamoDb;
///
/// # async fn start() {
/// let once = DynamoDb::new("answers").await.with_lease(Duration::from_secs(60));
/// # }
/// ```
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
    /// Tells this worker's claims from those of others.
    owner: String,
    lease: Duration,
    memory: Duration,
}

impl DynamoDb {
    /// A guard over this table, with what the environment says of credentials, region and endpoint.
    pub async fn new(table: impl Into<String>) -> Self {
        Self::over(table, dynamodb::client(Retries::Sdk).await)
    }

    /// A guard over a table of an emulator at this URL, which takes any credentials.
    pub async fn emulated(table: impl Into<String>, url: impl Into<String>) -> Self {
        Self::over(table, dynamodb::emulated(url, Retries::Sdk).await)
    }

    fn over(table: impl Into<String>, client: Client) -> Self {
        let owner = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Self { client, table: table.into(), owner, lease: LEASE, memory: MEMORY }
    }

    /// Lets claims end after this time, instead of 15 minutes, which is the longest that an invocation may last.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Remembers answers for this time, instead of 14 days, which is the longest that a queue keeps a message.
    #[must_use]
    pub fn with_memory(mut self, memory: Duration) -> Self {
        self.memory = memory;
        self
    }

    /// Creates the table, for tests and emulators. One that is there already is left alone.
    ///
    /// # Errors
    ///
    /// When DynamoDB refuses.
    pub async fn create_table(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let create = self.client.create_table().table_name(&self.table);
        let create =
            create.attribute_definitions(dynamodb::text_attribute(KEY)?).key_schema(dynamodb::key(KEY, KeyType::Hash)?);
        match create.billing_mode(BillingMode::PayPerRequest).send().await {
            Ok(_) => {}
            Err(error) if error.code() == Some("ResourceInUseException") => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        dynamodb::let_expire(&self.client, &self.table, EXPIRES).await
    }
}

/// Seconds since 1970, this long from now.
fn seconds(ahead: Duration) -> AttributeValue {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AttributeValue::N(now.saturating_add(ahead).as_secs().to_string())
}

#[async_trait]
impl Once for DynamoDb {
    async fn claim(&self, id: &CorrelationId) -> Result<Claim, BoxError> {
        let claimed = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(KEY, AttributeValue::S(id.to_string()))
            .item(OWNER, AttributeValue::S(self.owner.clone()))
            .item(EXPIRES, seconds(self.lease))
            // DynamoDB removes what has expired when it comes to it, so the time is looked at here too.
            .condition_expression("attribute_not_exists(#key) OR #expires <= :now")
            .expression_attribute_names("#key", KEY)
            .expression_attribute_names("#expires", EXPIRES)
            .expression_attribute_values(":now", seconds(Duration::ZERO))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let error = match claimed {
            Ok(_) => return Ok(Claim::First),
            Err(error) => error,
        };
        let taken = error.as_service_error().and_then(|error| match error {
            aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(taken) => Some(taken),
            _ => None,
        });
        match taken {
            None => Err(error.into()),
            Some(taken) => {
                let owner = taken.item().and_then(|item| item.get(OWNER)).and_then(|owner| owner.as_s().ok());
                Ok(if owner.is_some_and(|owner| owner == ANSWERED) { Claim::Answered } else { Claim::Elsewhere })
            }
        }
    }

    async fn answered(&self, id: &CorrelationId) -> Result<(), BoxError> {
        self.client
            .put_item()
            .table_name(&self.table)
            .item(KEY, AttributeValue::S(id.to_string()))
            .item(OWNER, AttributeValue::S(ANSWERED.to_owned()))
            .item(EXPIRES, seconds(self.memory))
            .send()
            .await?;
        Ok(())
    }

    async fn release(&self, id: &CorrelationId) -> Result<(), BoxError> {
        let released = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(KEY, AttributeValue::S(id.to_string()))
            // A claim that has ended may be another worker's by now.
            .condition_expression("#owner = :me")
            .expression_attribute_names("#owner", OWNER)
            .expression_attribute_values(":me", AttributeValue::S(self.owner.clone()))
            .send()
            .await;
        match released {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Leaves out the client, which holds credentials.
impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("table", &self.table).field("lease", &self.lease).finish_non_exhaustive()
    }
}
