//! Pushes to the client of an address, which may not be connected yet.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock;
use crate::push::{Payload, PushError, Pusher};
use crate::reply::ReplyAddress;

/// API Gateway waits this long for `$connect`, and returns 410 until it completes (CON-1, CON-6).
const GRACE: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Pushes to a client, and retries after 410 while its connection may still open.
pub(super) async fn send(pusher: &Pusher, address: &ReplyAddress, payload: &Payload) -> Result<(), PushError> {
    let opens_until = address.connecting_since().and_then(|since| since.checked_add(GRACE));
    let grace = opens_until.and_then(|until| until.duration_since(clock::now()).ok()).unwrap_or_default().min(GRACE);
    let start = Instant::now();
    let mut delay = FIRST_DELAY;
    loop {
        let error = match pusher.send_payload(address.connection_id(), payload).await {
            Err(error @ PushError::Gone { .. }) => error,
            outcome => return outcome,
        };
        let left = grace.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        sleep(delay.min(left)).await;
        delay = delay.saturating_mul(2).min(MAX_DELAY);
    }
}
