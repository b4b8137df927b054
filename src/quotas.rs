//! The quotas of API Gateway and Lambda that the crate keeps, each once.
//!
//! - [Quotas of WebSocket APIs](https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html)
//! - [Quotas of Lambda authorizers](https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html)
//! - [Quotas of Lambda](https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html)

// Each module needs some of them, and which ones depends on the features.
#![cfg_attr(not(all(feature = "local", feature = "worker")), allow(dead_code))]

use std::time::Duration;

/// The maximum size of a message in either direction, in bytes (LIM-1, MGT-6).
pub(crate) const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// The maximum size of a frame of a client, in bytes (LIM-1).
pub(crate) const MAX_FRAME_BYTES: usize = 32 * 1024;

/// The maximum size of an authorizer's response, in bytes (AUT-10).
pub(crate) const MAX_AUTHORIZER_RESPONSE_BYTES: usize = 8 * 1024;

/// The maximum size of a function's response, in bytes.
pub(crate) const MAX_FUNCTION_RESPONSE_BYTES: usize = 6 * 1024 * 1024;

/// The maximum length of a request's URL, in bytes (CON-9).
pub(crate) const MAX_URL_BYTES: usize = 4096;

/// How long API Gateway waits for a function (CON-1).
pub(crate) const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(29);

/// How long a connection stays open without a message in either direction (LIM-3).
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long a connection stays open at most (LIM-3).
pub(crate) const CONNECTION_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// How many functions an account runs at a time (LIM-7).
pub(crate) const CONCURRENT_EXECUTIONS: usize = 1000;
