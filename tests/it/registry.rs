//! Which connections exist.

use std::sync::Arc;

use lambda_websocket::registry::conformance::{self, Clock};
use lambda_websocket::registry::{Memory, Registry};

fn memory(clock: &Clock) -> Memory {
    let clock = clock.clone();
    Memory::with_clock(move || clock.now())
}

#[tokio::test]
async fn memory_does_what_a_registry_must() {
    let clock = Clock::new();
    conformance::run(&memory(&clock), &clock, 10_000).await;
}

#[tokio::test]
async fn so_it_does_as_a_shared_object() {
    let clock = Clock::new();
    let shared: Arc<dyn Registry> = Arc::new(memory(&clock));
    conformance::run(&shared, &clock, 1_000).await;
}
