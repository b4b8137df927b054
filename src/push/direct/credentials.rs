//! Credentials that are renewed in the background, and a clock that the server corrects.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::clock;
use crate::push::PushError;

/// New credentials are requested when the old ones expire within this time.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// The pause after a provider failed, or returned credentials that expire soon. It doubles each
/// time.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The minimum time between two renewals because of rejected credentials.
const BETWEEN_RENEWALS: Duration = Duration::from_secs(10);
/// The timeout of the provider.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
/// AWS accepts signatures that are up to five minutes old.
const MAX_SKEW: Duration = Duration::from_secs(4 * 60);

/// Caches the credentials of a provider. Clones share them.
#[derive(Clone)]
pub(super) struct Keeper {
    provider: SharedCredentialsProvider,
    state: Arc<Mutex<State>>,
    /// Held by the one task that calls the provider.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// The number of seconds by which the server's clock is ahead of ours.
    skew: Arc<AtomicI64>,
}

/// Credentials, with a number that increases with each new set.
pub(super) struct Held {
    pub(super) number: u64,
    pub(super) credentials: Credentials,
}

#[derive(Default)]
struct State {
    held: Option<Arc<Held>>,
    /// When to call the provider next, if ever.
    ask_at: Option<SystemTime>,
    /// How often in a row the provider returned nothing better.
    vain: u32,
    /// When rejected credentials last caused a renewal.
    renewed_at: Option<SystemTime>,
    /// The last failure, and the number of calls to the provider up to it.
    failure: Option<(u64, Failure)>,
    asked: u64,
}

/// A failure of the provider, shared by all tasks that waited for it.
#[derive(Debug, Clone)]
struct Failure(Arc<CredentialsError>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Held {
    fn expires_within(&self, time: Duration, now: SystemTime) -> bool {
        match (self.credentials.expiry(), now.checked_add(time)) {
            (Some(expiry), Some(then)) => expiry <= then,
            _ => false,
        }
    }
}

impl Keeper {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, state: Arc::default(), asking: Arc::default(), skew: Arc::default() }
    }

    /// Returns the server's time, as far as it is known.
    pub(super) fn now(&self) -> SystemTime {
        let skew = self.skew.load(Ordering::Relaxed);
        let (now, by) = (clock::now(), Duration::from_secs(skew.unsigned_abs()));
        let corrected = if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        corrected.unwrap_or(now)
    }

    /// Corrects the clock by the server's `Date`. Returns whether it was too far off.
    pub(super) fn set_clock(&self, date: &str) -> bool {
        let Ok(date) = jiff::fmt::rfc2822::parse(date) else {
            return false;
        };
        let theirs = SystemTime::from(date.timestamp());
        let off = |ours: SystemTime| theirs.duration_since(ours).unwrap_or_else(|error| error.duration());
        if off(self.now()) < MAX_SKEW {
            return false;
        }
        let ours = clock::now();
        let seconds = i64::try_from(off(ours).as_secs()).unwrap_or_default();
        self.skew.store(if theirs < ours { seconds.saturating_neg() } else { seconds }, Ordering::Relaxed);
        tracing::warn!(seconds, "the clock is skewed: signatures use the corrected time");
        true
    }

    /// Returns credentials that are valid at this time. Before they expire, a background task
    /// renews them.
    pub(super) async fn credentials(&self, now: SystemTime) -> Result<Arc<Held>, PushError> {
        let asked = {
            let state = self.state();
            if let Some(held) = state.held.as_ref().filter(|held| !held.expires_within(Duration::ZERO, now)) {
                let held = Arc::clone(held);
                if state.ask_at.is_some_and(|at| at <= now)
                    && let Ok(turn) = Arc::clone(&self.asking).try_lock_owned()
                {
                    drop(state);
                    let keeper = self.clone();
                    tokio::spawn(async move { keeper.ask(now, turn).await });
                }
                return Ok(held);
            }
            state.asked
        };
        let turn = Arc::clone(&self.asking).lock_owned().await;
        {
            let state = self.state();
            match (&state.held, &state.failure) {
                (Some(held), _) if !held.expires_within(Duration::ZERO, now) => return Ok(Arc::clone(held)),
                // The provider was called while this task waited.
                (_, Some((at, failure))) if *at > asked => {
                    return Err(PushError::Credentials { source: Box::new(failure.clone()) });
                }
                _ => {}
            }
        }
        match self.ask(now, turn).await {
            Ok(held) => Ok(held),
            Err(failure) => Err(PushError::Credentials { source: Box::new(failure) }),
        }
    }

    /// Replaces the rejected credentials of this number, at most once in ten seconds. Returns
    /// whether there are newer ones.
    pub(super) async fn renew(&self, refused: u64, now: SystemTime) -> bool {
        let turn = Arc::clone(&self.asking).lock_owned().await;
        {
            let mut state = self.state();
            if state.held.as_ref().is_none_or(|held| held.number != refused) {
                return true;
            }
            let since = state.renewed_at.map(|at| now.duration_since(at).unwrap_or_default());
            if since.is_some_and(|since| since < BETWEEN_RENEWALS) {
                return false;
            }
            state.renewed_at = Some(now);
        }
        self.ask(now, turn).await.is_ok_and(|held| held.number != refused)
    }

    async fn ask(&self, now: SystemTime, _turn: OwnedMutexGuard<()>) -> Result<Arc<Held>, Failure> {
        let given = timeout(PROVIDER_TIMEOUT, self.provider.provide_credentials())
            .await
            .unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(PROVIDER_TIMEOUT)));
        let mut state = self.state();
        state.asked = state.asked.saturating_add(1);
        let given = given.map_err(|error| Failure(Arc::new(error)));
        if let Ok(credentials) = &given {
            let is_new = state.held.as_ref().is_none_or(|held| held.credentials != *credentials);
            if is_new {
                let number = state.held.as_ref().map_or(0, |held| held.number.wrapping_add(1));
                state.held = Some(Arc::new(Held { number, credentials: credentials.clone() }));
            }
        }
        let next = match &given {
            Ok(credentials) => credentials.expiry().map(|expiry| expiry.checked_sub(AHEAD)),
            Err(_) => Some(None),
        };
        (state.ask_at, state.vain) = match next {
            // They do not expire.
            None => (None, 0),
            Some(Some(at)) if at > now => (Some(at), 0),
            Some(_) => {
                let pause = MIN_PAUSE.saturating_mul(2_u32.saturating_pow(state.vain)).min(MAX_PAUSE);
                (now.checked_add(pause), state.vain.saturating_add(1))
            }
        };
        match given {
            Ok(_) => {
                let held = state.held.clone();
                held.ok_or_else(|| Failure(Arc::new(CredentialsError::not_loaded("no credentials"))))
            }
            Err(failure) => {
                tracing::warn!(error = %failure, "the credentials provider failed");
                state.failure = Some((state.asked, failure.clone()));
                Err(failure)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a panic fails the test")]
mod tests;
