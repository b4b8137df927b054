//! The two transports that reach API Gateway. Both pass one suite.

use lambda_websocket::Pusher;
use lambda_websocket::event::Region;
use lambda_websocket::push::Endpoint;

#[cfg(feature = "direct")]
mod direct;
#[cfg(feature = "sdk")]
mod sdk;
