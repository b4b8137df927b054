//! A store of redeemed tickets in a DynamoDB table.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;

use super::{Redeemer, TicketStore};
use crate::dynamodb::{self, BoxError, Retries};

const KEY: &str = "ticketId";
const REDEEMER: &str = "redeemedBy";
const EXPIRES: &str = "expiresAt";

/// Records redeemed tickets in a DynamoDB table.
///
/// The table has the string `ticketId` as its partition key, and `expiresAt` as its time-to-live
/// attribute. The authorizer needs `dynamodb:PutItem` on it. Redeeming a ticket costs one write.
#[derive(Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
}

impl DynamoDb {
    /// Creates a store in this table, with credentials, region, and endpoint from the environment.
    pub async fn new(table: impl Into<String>) -> Self {
        Self { client: dynamodb::client(Retries::Sdk).await, table: table.into() }
    }

    /// Creates a store in this table, with an AWS SDK configuration.
    ///
    /// Credentials, region, endpoint, HTTP client, timeouts, and retries are those of the
    /// configuration. Default operation timeout: 15 seconds. See
    /// [`registry::DynamoDb::from_config`](crate::registry::DynamoDb::from_config).
    pub fn from_config(table: impl Into<String>, config: &SdkConfig) -> Self {
        Self { client: dynamodb::from_config(config, Retries::Sdk), table: table.into() }
    }

    /// Creates a store in a table of an emulator at this URL, with placeholder credentials.
    pub async fn with_endpoint_url(table: impl Into<String>, url: impl Into<String>) -> Self {
        Self { client: dynamodb::with_endpoint_url(url, Retries::Sdk).await, table: table.into() }
    }

    /// Creates the table if it does not exist, for tests and emulators.
    ///
    /// # Errors
    ///
    /// Returns an error if DynamoDB rejects the request or cannot be reached.
    pub async fn create_table(&self) -> Result<(), BoxError> {
        dynamodb::create_store(&self.client, &self.table, KEY, EXPIRES).await
    }
}

#[async_trait]
impl TicketStore for DynamoDb {
    async fn redeem(&self, ticket_id: &str, redeemer: &Redeemer, expires_at: SystemTime) -> Result<bool, BoxError> {
        let seconds = expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let redeemer = AttributeValue::S(redeemer.as_str().to_owned());
        let redeemed = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(KEY, AttributeValue::S(ticket_id.to_owned()))
            .item(REDEEMER, redeemer.clone())
            .item(EXPIRES, AttributeValue::N(seconds.to_string()))
            // The SDK retries a request whose response was lost, and may then find its own item.
            .condition_expression("attribute_not_exists(#key) OR #redeemer = :me")
            .expression_attribute_names("#key", KEY)
            .expression_attribute_names("#redeemer", REDEEMER)
            .expression_attribute_values(":me", redeemer)
            .send()
            .await;
        match redeemed {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(error.into()),
            },
        }
    }
}

/// Leaves out the client, which holds credentials.
impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("table", &self.table).finish_non_exhaustive()
    }
}
