//! Who may connect? A REQUEST authorizer that reads a JSON Web Token from `?Auth=`.
//!
//! ```sh
//! cargo build --release --example authorizer --no-default-features --features runtime
//! ```
//!
//! `JWT_KEY` is the key that tokens are signed with by HMAC-SHA-256, at least 32 bytes. Or `JWT_KEY_SECRET` names a secret of
//! Secrets Manager that has the key, and may be rotated while clients are connected.

#[path = "authorizer/key_secret.rs"]
pub mod key_secret;

use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use lambda_websocket::authorizer::{self, Authorization, Denied, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, RwLock};
use tokio::time::Instant;

use self::key_secret::KeySecret;

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Who it is about.
    pub sub: String,
    /// The organisation they belong to.
    pub org: u64,
    /// Until when it is good, in seconds since 1970.
    pub exp: u64,
}

/// What the routes learn from the authorizer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub org: u64,
}

/// The key is missing or too short to be safe.
#[derive(thiserror::Error)]
#[error("JWT_KEY must be set to the key that tokens are signed with, at least 32 bytes; it has {length}")]
pub struct WeakKey {
    length: usize,
}

/// The same text: it is what `main` prints when it returns the error.
impl fmt::Debug for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How old keys from a secret may be: so long a key that was withdrawn is still believed.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// A client that invents tokens does not make us read the secret more often.
const MIN_AGE: Duration = Duration::from_secs(10);

/// Knows which tokens are good. Clones share the keys.
#[derive(Clone)]
pub struct Tokens {
    keys: Arc<RwLock<Vec<DecodingKey>>>,
    secret: Option<Arc<Rotating>>,
    validation: Validation,
}

/// Where new keys come from, and when they were last asked for. Locked meanwhile.
struct Rotating {
    secret: KeySecret,
    read: Mutex<Option<Instant>>,
}

impl Tokens {
    /// Believes tokens that are signed with this key and not expired.
    pub fn new(key: &[u8]) -> Result<Self, WeakKey> {
        Ok(Self { keys: Arc::new(RwLock::new(vec![checked(key)?])), secret: None, validation: validation() })
    }

    /// Believes tokens that are signed with the current or the previous key of this secret, which is read when a token comes.
    pub fn from_secret(secret: KeySecret) -> Self {
        let secret = Some(Arc::new(Rotating { secret, read: Mutex::default() }));
        Self { keys: Arc::default(), secret, validation: validation() }
    }

    /// The handler: 401 without exactly one token, 403 for a token that is not good.
    pub async fn authorize(self, request: Request) -> Result<Authorization, Denied> {
        let mut tokens = request.query_string().get_all("Auth");
        let token = match (tokens.next(), tokens.next()) {
            (Some(token), None) if !token.is_empty() => token,
            _ => return Err(Denied::Unauthorized),
        };
        self.refresh(MAX_AGE).await;
        let claims = match self.claims(token).await {
            // Perhaps it is signed with a key that is new.
            None if self.refresh(MIN_AGE).await => self.claims(token).await,
            claims => claims,
        };
        if self.keys.read().await.is_empty() {
            return Err("there are no keys to check tokens with".into());
        }
        let claims = claims.ok_or(Denied::Forbidden)?;
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).ok_or(Denied::Forbidden)?;
        Authorization::allow(claims.sub).with_expiry(expires_at).with_context(&Session { org: claims.org })
    }

    async fn claims(&self, token: &str) -> Option<Claims> {
        let keys = self.keys.read().await;
        keys.iter().find_map(|key| decode(token, key, &self.validation).ok()).map(|data| data.claims)
    }

    /// Reads the secret if that was not done for this time. Returns whether there may be other keys now.
    async fn refresh(&self, age: Duration) -> bool {
        let Some(rotating) = &self.secret else { return false };
        let mut read = rotating.read.lock().await;
        if read.is_some_and(|read| read.elapsed() < age) {
            return false;
        }
        *read = Some(Instant::now());
        let keys = rotating
            .secret
            .keys()
            .await
            .and_then(|keys| Ok(keys.iter().map(|key| checked(key)).collect::<Result<_, _>>()?));
        match keys {
            Ok(keys) => *self.keys.write().await = keys,
            // Those that are known stay good.
            Err(error) => tracing::error!(%error, "the secret with the keys cannot be read"),
        }
        true
    }
}

fn checked(key: &[u8]) -> Result<DecodingKey, WeakKey> {
    match key.len() {
        0..32 => Err(WeakKey { length: key.len() }),
        _ => Ok(DecodingKey::from_secret(key)),
    }
}

fn validation() -> Validation {
    // Only this algorithm: a token must not choose how it is checked.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let tokens = match env::var("JWT_KEY_SECRET").ok().filter(|secret| !secret.is_empty()) {
        Some(secret) => Tokens::from_secret(KeySecret::new(&secret)?),
        None => Tokens::new(env::var("JWT_KEY").unwrap_or_default().as_bytes())?,
    };
    authorizer::run(move |request| tokens.clone().authorize(request)).await
}
