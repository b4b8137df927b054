//! The definition of the table.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{BillingMode, GlobalSecondaryIndex, KeyType, Projection, ProjectionType, TableStatus};

use super::item::{CONNECTIONS, PROJECTED};
use crate::dynamodb::{BoxError, key, let_expire, text_attribute};

/// The timeout for a new table to become active.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn create(client: &Client, table: &str) -> Result<(), BoxError> {
    let attributes = ["pk", "sk", "listKey", "listSort"];
    let attributes = attributes.into_iter().map(text_attribute).collect::<Result<_, _>>()?;
    let created = client
        .create_table()
        .table_name(table)
        .set_attribute_definitions(Some(attributes))
        .key_schema(key("pk", KeyType::Hash)?)
        .key_schema(key("sk", KeyType::Range)?)
        .global_secondary_indexes(index()?)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await;
    match created {
        Ok(_) => {
            until_active(client, table).await?;
            let_expire(client, table, "expiresAt").await
        }
        Err(error) if error.code() == Some("ResourceInUseException") => until_active(client, table).await,
        Err(error) => Err(error.into()),
    }
}

fn index() -> Result<GlobalSecondaryIndex, BoxError> {
    let projected = PROJECTED.into_iter().map(str::to_owned).collect();
    let projection =
        Projection::builder().projection_type(ProjectionType::Include).set_non_key_attributes(Some(projected)).build();
    Ok(GlobalSecondaryIndex::builder()
        .index_name(CONNECTIONS)
        .key_schema(key("listKey", KeyType::Hash)?)
        .key_schema(key("listSort", KeyType::Range)?)
        .projection(projection)
        .build()?)
}

async fn until_active(client: &Client, table: &str) -> Result<(), BoxError> {
    let wait = async {
        loop {
            let described = client.describe_table().table_name(table).send().await?;
            if described.table().and_then(|table| table.table_status()) == Some(&TableStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let not_active = || format!("the table {table:?} is not active after {} s", TIMEOUT.as_secs());
    tokio::time::timeout(TIMEOUT, wait).await.unwrap_or_else(|_| Err(not_active().into()))
}
