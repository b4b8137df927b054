//! Tests of expiring credentials, in virtual time.

use std::sync::atomic::AtomicU64;

use aws_credential_types::provider::{self, ProvideCredentials, future};
use futures_util::future::join_all;

use super::*;

/// A provider of numbered credentials with a lifetime.
#[derive(Debug, Clone)]
struct Provider {
    asked: Arc<AtomicU64>,
    /// The lifetime in seconds.
    good_for: Arc<AtomicU64>,
    /// Whether the provider fails, and how long it takes.
    is_down: Arc<std::sync::atomic::AtomicBool>,
    takes: Duration,
}

impl Provider {
    fn new(good_for: u64) -> Self {
        Self {
            asked: Arc::default(),
            good_for: Arc::new(AtomicU64::new(good_for)),
            is_down: Arc::default(),
            takes: Duration::from_millis(200),
        }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn keeper(&self) -> Keeper {
        Keeper::new(SharedCredentialsProvider::new(self.clone()))
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(self.takes).await;
            let answer: provider::Result = match self.is_down.load(Ordering::SeqCst) {
                true => Err(CredentialsError::not_loaded("out of order")),
                false => {
                    let expiry = clock::now() + Duration::from_secs(self.good_for.load(Ordering::SeqCst));
                    Ok(Credentials::new(format!("KEY{number}"), "secret", None, Some(expiry), "test"))
                }
            };
            answer
        })
    }
}

async fn key(keeper: &Keeper) -> Result<String, PushError> {
    let held = keeper.credentials(keeper.now()).await?;
    Ok(held.credentials.access_key_id().to_owned())
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn credentials_are_refreshed_in_the_background_before_expiry() {
    let provider = Provider::new(3600);
    let keeper = provider.keeper();
    let first = join_all((0..50).map(|_| key(&keeper))).await;
    assert!(first.into_iter().all(|key| key.unwrap() == "KEY0"), "one asks for all");
    pass(3290).await;
    assert_eq!((key(&keeper).await.unwrap().as_str(), provider.asked()), ("KEY0", 1));
    pass(15).await;
    let start = tokio::time::Instant::now();
    assert_eq!(key(&keeper).await.unwrap(), "KEY0", "the old ones are good for five minutes");
    assert!(start.elapsed().is_zero(), "and nobody waits");
    pass(1).await;
    assert_eq!((key(&keeper).await.unwrap().as_str(), provider.asked()), ("KEY1", 2));
}

#[tokio::test(start_paused = true)]
async fn failing_provider_does_not_delay_pushes_while_credentials_are_valid() {
    let provider = Provider::new(3600);
    let keeper = provider.keeper();
    key(&keeper).await.unwrap();
    provider.is_down.store(true, Ordering::SeqCst);
    pass(3600 - 240).await;
    // Four minutes, with ten pushes a second.
    for _ in 0..2390 {
        let start = tokio::time::Instant::now();
        assert_eq!(key(&keeper).await.unwrap(), "KEY0");
        assert!(start.elapsed().is_zero());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((5..=12).contains(&provider.asked()), "{}", provider.asked());
    pass(2).await;
    // All tasks that wait for one call receive its error.
    let before = provider.asked();
    let all = join_all((0..64).map(|_| key(&keeper))).await;
    assert!(all.into_iter().all(|key| matches!(key, Err(PushError::Credentials { .. }))));
    assert_eq!(provider.asked(), before + 1);
    provider.is_down.store(false, Ordering::SeqCst);
    assert!(key(&keeper).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_expire_soon_are_not_refreshed_on_every_push() {
    let provider = Provider::new(180);
    let keeper = provider.keeper();
    for _ in 0..1000 {
        key(&keeper).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((3..=12).contains(&provider.asked()), "{}", provider.asked());
}

#[tokio::test(start_paused = true)]
async fn rejected_credentials_are_refreshed_at_most_every_ten_seconds() {
    let provider = Provider::new(3600);
    let keeper = provider.keeper();
    let held = keeper.credentials(keeper.now()).await.unwrap();
    let renewed = join_all((0..64).map(|_| keeper.renew(held.number, keeper.now()))).await;
    assert!(renewed.into_iter().all(|renewed| renewed), "all may try again with the new ones");
    assert_eq!((provider.asked(), key(&keeper).await.unwrap().as_str()), (2, "KEY1"));
    let held = keeper.credentials(keeper.now()).await.unwrap();
    assert!(!keeper.renew(held.number, keeper.now()).await, "the provider was asked just now");
    assert_eq!(provider.asked(), 2);
    pass(11).await;
    assert!(keeper.renew(held.number, keeper.now()).await);
    assert_eq!(provider.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn clock_skew_is_corrected_from_server_date() {
    let keeper = Provider::new(3600).keeper();
    let date = |time: SystemTime| {
        let time = jiff::Timestamp::try_from(time).unwrap();
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap()
    };
    assert!(!keeper.set_clock("yesterday"));
    assert!(!keeper.set_clock(&date(clock::now() + Duration::from_secs(180))));
    for off in [3600, 0, -7200_i64] {
        let by = Duration::from_secs(off.unsigned_abs());
        let theirs = if off < 0 { clock::now() - by } else { clock::now() + by };
        assert!(keeper.set_clock(&date(theirs)), "{off}");
        let left = theirs.duration_since(keeper.now()).unwrap_or_else(|error| error.duration());
        assert!(left < Duration::from_secs(3), "{left:?}");
        assert!(!keeper.set_clock(&date(theirs)), "it is right now");
    }
}
