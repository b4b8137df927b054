//! Tests of the public API, one file per module.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic fails the test"
)]

mod allocation;
mod architecture;
#[cfg(all(feature = "sdk", feature = "direct"))]
#[path = "../support/authority.rs"]
mod authority;
mod authorizer;
#[cfg(feature = "aws_lambda_events")]
mod aws_lambda_events;
#[cfg(feature = "push")]
mod broadcast;
#[cfg(not(feature = "runtime"))]
mod compile_fail;
#[cfg(all(
    feature = "sdk",
    feature = "direct",
    feature = "dynamodb",
    feature = "worker",
    feature = "tickets",
    feature = "rate-limit"
))]
mod configured;
mod conformance;
mod documents;
#[cfg(all(feature = "local", feature = "sdk", feature = "direct", feature = "dynamodb", feature = "conformance"))]
#[path = "../support/dynamo/mod.rs"]
mod dynamo;
#[cfg(all(feature = "local", feature = "sdk"))]
mod emulators;
#[cfg(feature = "push")]
mod endpoint;
mod event;
#[cfg(all(feature = "hub", feature = "local"))]
mod expiry;
#[cfg(all(feature = "local", feature = "sdk"))]
mod faults;
mod fixture;
#[cfg(all(feature = "local", feature = "sdk"))]
mod function;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "worker")]
mod idempotency;
#[cfg(all(feature = "worker", feature = "dynamodb"))]
#[path = "../support/idempotency_table.rs"]
mod idempotency_table;
mod identifiers;
#[cfg(all(feature = "sdk", feature = "direct"))]
#[path = "../support/line.rs"]
mod line;
#[cfg(all(feature = "local", feature = "sdk"))]
mod local;
mod logs;
#[cfg(all(feature = "hub", feature = "metrics", feature = "worker"))]
mod metrics;
mod policy;
mod protocol;
#[cfg(all(feature = "local", feature = "sdk", feature = "direct", feature = "dynamodb", feature = "conformance"))]
#[path = "../support/proxy.rs"]
mod proxy;
#[cfg(feature = "push")]
mod push;
#[cfg(feature = "rate-limit")]
mod rate_limit;
#[cfg(feature = "conformance")]
mod registry;
#[cfg(all(feature = "local", feature = "sdk", feature = "direct", feature = "dynamodb", feature = "conformance"))]
mod registry_dynamodb;
#[cfg(feature = "reply")]
mod reply;
mod route;
#[cfg(feature = "runtime")]
mod runtime;
mod secrets;
#[cfg(all(feature = "local", feature = "sdk", feature = "direct"))]
mod signature;
#[cfg(feature = "push")]
#[path = "../support/stub.rs"]
#[allow(dead_code, reason = "what it takes depends on the transports that there are")]
mod stub;
#[cfg(all(feature = "sdk", feature = "direct"))]
mod tls;
#[cfg(all(feature = "local", feature = "worker"))]
mod traces;
#[cfg(any(feature = "sdk", feature = "direct"))]
mod transport;
#[cfg(feature = "worker")]
mod worker;
#[cfg(all(feature = "local", feature = "sdk", feature = "dynamodb", feature = "worker"))]
mod worker_sqs;
