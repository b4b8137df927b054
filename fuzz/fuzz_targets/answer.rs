//! Classifying an endpoint's response to a push.
#![no_main]

use lambda_websocket::event::ConnectionId;
use lambda_websocket::push::PushError;
use lambda_websocket::route::StatusCode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: (u16, Option<&str>, &[u8])| {
    let (status, error_type, body) = answer;
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let connection_id = ConnectionId::new("L0SM9cOFvHcCIhw=").expect("a connection id");
    let error = PushError::from_response(&connection_id, 1, status, error_type, body);
    assert_eq!(error.is_none(), status.is_success());
    let _ = error.map(|error| (error.is_retryable(), format!("{error} {error:?}")));
});
