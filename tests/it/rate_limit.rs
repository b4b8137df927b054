//! Rate limits per client: token buckets in memory and in a table.

use std::time::Duration;

use lambda_websocket::rate_limit::{InMemory, Quota, RateLimiter};
use proptest::prelude::*;
use tokio::time::Instant;

fn memory(quota: Quota) -> RateLimiter {
    RateLimiter::new(quota, InMemory::new())
}

async fn passes(limiter: &RateLimiter, key: &str) -> bool {
    limiter.take(key).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn burst_then_sustained_rate_is_allowed() {
    let limiter = memory(Quota::per_second(10).with_burst(3));
    for _ in 0..3 {
        assert!(passes(&limiter, "alice").await);
    }
    let refused = limiter.take("alice").await.unwrap_err();
    assert!(refused.retry_after <= Duration::from_millis(100), "{refused}");
    assert!(refused.retry_after > Duration::from_millis(90), "{refused}");
    // The time of day and tokio's paused clock may differ by a millisecond.
    tokio::time::advance(refused.retry_after + Duration::from_millis(2)).await;
    assert!(passes(&limiter, "alice").await, "it says when");
    assert!(!passes(&limiter, "alice").await);
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut passed = 0;
    while passes(&limiter, "alice").await {
        passed += 1;
    }
    assert_eq!(passed, 3, "a bucket does not overflow");
}

#[tokio::test(start_paused = true)]
async fn flooding_client_does_not_affect_others() {
    let limiter = memory(Quota::per_second(5));
    let (started, mut flood, mut calm) = (Instant::now(), 0, 0);
    for tick in 0..10_000 {
        flood += usize::from(passes(&limiter, "flood").await);
        if tick % 1000 == 0 {
            calm += usize::from(passes(&limiter, "calm").await);
        }
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    assert_eq!(calm, 10, "one a second always passes");
    // The burst of five, and five per second.
    assert!((53..=55).contains(&flood), "{flood}");
}

#[tokio::test(start_paused = true)]
async fn invalid_quotas_are_clamped() {
    assert_eq!(Quota::per_second(0), Quota::per_second(1));
    assert_eq!(Quota::per_second(5).with_burst(0), Quota::per_second(5).with_burst(1));
    for quota in [Quota::per_second(u32::MAX), Quota::per_minute(u32::MAX), Quota::per_minute(0).with_burst(u32::MAX)] {
        assert!(passes(&memory(quota), "alice").await);
    }
    let once_a_minute = memory(Quota::per_minute(1));
    assert!(passes(&once_a_minute, "alice").await);
    let retry_after = once_a_minute.take("alice").await.unwrap_err().retry_after;
    assert!((59.0..=60.0).contains(&retry_after.as_secs_f64()), "{retry_after:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Starting with a full bucket, exactly the burst plus the rate is allowed in any interval.
    #[test]
    fn limiter_allows_exactly_the_quota(
        rate in 1_u32..50,
        burst in 1_u32..20,
        gaps in proptest::collection::vec(0_u64..400, 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let limiter = memory(Quota::per_second(rate).with_burst(burst));
            let (mut passed, mut tokens, mut elapsed) = (0.0_f64, f64::from(burst), 0.0_f64);
            for gap in gaps {
                tokio::time::advance(Duration::from_millis(gap)).await;
                elapsed += gap as f64 / 1000.0;
                tokens = (tokens + gap as f64 / 1000.0 * f64::from(rate)).min(f64::from(burst));
                let did_pass = passes(&limiter, "alice").await;
                // The real clock moves a little, too: only unambiguous cases are compared.
                if tokens > 1.05 {
                    assert!(did_pass, "{tokens} tokens");
                }
                if tokens < 0.95 - 0.02 {
                    assert!(!did_pass, "{tokens} tokens");
                }
                if did_pass {
                    passed += 1.0;
                    tokens = (tokens - 1.0).max(0.0);
                }
            }
            assert!(passed <= f64::from(burst) + elapsed * f64::from(rate) + 0.2);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn layer_replies_with_error_code_and_retry_after() {
    use lambda_websocket::rate_limit::RateLimitLayer;
    use lambda_websocket::{Message, Router};

    let limiter = memory(Quota::per_second(1));
    for layer in [RateLimitLayer::per_connection(limiter.clone()), RateLimitLayer::per_principal(limiter)] {
        let router =
            Router::new().on("say", |_: Message| async { Ok(()) }).on("$disconnect", || async { Ok(()) }).layer(layer);
        let say = async || router.handle(crate::fixture::message("say", r#"{"id":7}"#)).await.unwrap();
        assert_eq!(say().await.status(), 200);
        let refused = say().await;
        assert_eq!(refused.status(), 429);
        let frame: serde_json::Value = serde_json::from_str(refused.text().unwrap()).unwrap();
        assert_eq!((&frame["id"], &frame["error"]["code"]), (&7.into(), &"too_many_requests".into()));
        let wait = frame["error"]["details"]["retryAfterMs"].as_u64().unwrap();
        assert!((900..=1000).contains(&wait), "{wait}");
        tokio::time::advance(Duration::from_millis(wait + 5)).await;
        assert_eq!(say().await.status(), 200);
        assert_eq!(router.handle(crate::fixture::event("disconnect")).await.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn named_limits_share_a_store_without_sharing_tokens() {
    use lambda_websocket::rate_limit::RateLimitLayer;
    use lambda_websocket::{Message, Router};

    let store = InMemory::new();
    let limited = |key: &str, quota, name: &str| {
        let layer = RateLimitLayer::per_connection(RateLimiter::new(quota, store.clone())).named(name);
        Router::new().on(key, |_: Message| async { Ok(()) }).layer(layer)
    };
    let slow = limited("slow", Quota::per_minute(1), "slow");
    let router = slow.merge(limited("quick", Quota::per_second(100), "quick"));
    let status = async |key: &str| router.handle(crate::fixture::message(key, "")).await.unwrap().status().as_u16();
    assert_eq!((status("slow").await, status("slow").await), (200, 429));
    assert_eq!((status("quick").await, status("quick").await), (200, 200));
}

#[cfg(all(feature = "dynamodb", feature = "worker"))]
mod table {
    use std::sync::Arc;

    use lambda_websocket::rate_limit::DynamoDb;
    use tokio::task::JoinSet;

    use super::*;
    use crate::idempotency_table::IdempotencyTable;

    /// Returns a limiter as in a separate process.
    async fn limiter(table: &IdempotencyTable, quota: Quota) -> RateLimiter {
        let store = DynamoDb::with_endpoint_url("limits", table.url()).await;
        store.create_table().await.unwrap();
        RateLimiter::new(quota, store)
    }

    fn writes(table: &IdempotencyTable) -> usize {
        table.requests().iter().filter(|request| *request == "PutItem").count()
    }

    #[tokio::test]
    async fn table_limits_requests_across_processes() {
        let table = IdempotencyTable::start().await;
        let quota = Quota::per_minute(1).with_burst(6);
        let (one, other) = (limiter(&table, quota).await, limiter(&table, quota).await);
        for limiter in [&one, &one, &other, &one, &other, &other] {
            assert!(passes(limiter, "alice").await);
        }
        // Each change of process costs one more write.
        assert_eq!(writes(&table), 6 + 3);
        assert!(!passes(&one, "alice").await);
        assert!(!passes(&other, "alice").await);
        let before = writes(&table);
        for _ in 0..100 {
            assert!(!passes(&one, "alice").await && !passes(&other, "alice").await);
        }
        assert_eq!(writes(&table), before, "a client that is known to be too fast costs nothing");
        assert!(passes(&one, "bob").await);
    }

    #[tokio::test]
    async fn concurrent_requests_get_exactly_the_burst() {
        let table = IdempotencyTable::start().await;
        let quota = Quota::per_minute(1).with_burst(8);
        let mut limiters = Vec::new();
        for _ in 0..4 {
            limiters.push(Arc::new(limiter(&table, quota).await));
        }
        let mut attempts = JoinSet::new();
        for n in 0..64 {
            let limiter = Arc::clone(&limiters[n % 4]);
            attempts.spawn(async move { passes(&limiter, "alice").await });
        }
        let passed = attempts.join_all().await.into_iter().filter(|passed| *passed).count();
        assert_eq!(passed, 8);
    }

    #[tokio::test]
    async fn lost_response_takes_one_token() {
        let table = IdempotencyTable::start().await;
        let limiter = limiter(&table, Quota::per_minute(1).with_burst(2)).await;
        table.lose_answers(1);
        assert!(passes(&limiter, "alice").await);
        assert_eq!(writes(&table), 2, "the SDK has asked twice");
        assert!(passes(&limiter, "alice").await);
        assert!(!passes(&limiter, "alice").await);
    }

    #[tokio::test]
    async fn failing_store_allows_requests() {
        let table = IdempotencyTable::start().await;
        let limiter = RateLimiter::new(Quota::per_minute(1), DynamoDb::with_endpoint_url("limits", table.url()).await);
        for _ in 0..3 {
            assert!(passes(&limiter, "alice").await, "there is no table");
        }
    }

    #[tokio::test]
    async fn wrong_clock_blocks_at_most_one_burst_interval() {
        let table = IdempotencyTable::start().await;
        let limiter = limiter(&table, Quota::per_second(5)).await;
        assert!(passes(&limiter, "alice").await);
        table.change("fullAt", |_| "99999999999999999".to_owned());
        let other = RateLimiter::new(Quota::per_second(5), DynamoDb::with_endpoint_url("limits", table.url()).await);
        let first = other.take("alice").await;
        let wait = first.err().map_or(Duration::ZERO, |refused| refused.retry_after);
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[tokio::test]
    async fn full_bucket_expires_in_the_table() {
        let table = IdempotencyTable::start().await;
        let limiter = limiter(&table, Quota::per_minute(60)).await;
        assert!(passes(&limiter, "alice").await);
        let expires: u64 = table.items()[0]["expiresAt"]["N"].as_str().unwrap().parse().unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!((now + 30..=now + 62).contains(&expires), "{}", expires - now);
    }
}
