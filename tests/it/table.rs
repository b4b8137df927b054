//! The registry in a table, on two servers of DynamoDB that are not ours. `tests/peers/emulators` installs those and runs this.

use lambda_websocket::registry::DynamoDb;
use lambda_websocket::registry::conformance::{self, Clock};

use crate::emulators::{dynamodb_local, ministack};

async fn conforms(url: &str, many: usize) {
    let clock = Clock::new();
    let registry = DynamoDb::emulated("connections", url).await.with_clock({
        let clock = clock.clone();
        move || clock.now()
    });
    registry.create_table().await.unwrap();
    registry.create_table().await.expect("it is there already");
    conformance::run(&registry, &clock, many).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: run tests/peers/emulators"]
async fn a_table_does_what_a_registry_must() {
    conforms(&dynamodb_local().await.url, 10_000).await;
}

#[tokio::test]
#[ignore = "needs ministack: run tests/peers/emulators"]
async fn so_it_does_on_ministack() {
    conforms(&ministack().await.url, 1_000).await;
}
