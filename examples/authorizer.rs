//! A REQUEST authorizer that verifies a JSON Web Token from `?Auth=`.
//!
//! ```sh
//! cargo build --release --example authorizer --no-default-features --features runtime
//! ```
//!
//! `JWT_KEY` is the HMAC-SHA-256 key that signs the tokens, at least 32 bytes. Alternatively,
//! `JWT_KEY_SECRET` names a secret in Secrets Manager that contains the key. It may be rotated
//! while clients are connected.

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

/// The claims of a token.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// The user's organization.
    pub org: u64,
    /// When the token expires, in seconds since 1970.
    pub exp: u64,
}

/// The context that the authorizer passes to the routes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub org: u64,
}

/// The key is missing, or too short to be secure.
#[derive(thiserror::Error)]
#[error("JWT_KEY must be set to the key that tokens are signed with, at least 32 bytes; it has {length}")]
pub struct WeakKey {
    length: usize,
}

/// The same text as `Display`, because `main` prints the `Debug` form of its error.
impl fmt::Debug for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Maximum age of keys from a secret. A revoked key is accepted for up to this long.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// Minimum time between two reads, so that clients with invalid tokens cannot force more.
const MIN_AGE: Duration = Duration::from_secs(10);

/// Verifies tokens. Clones share the keys.
#[derive(Clone)]
pub struct Tokens {
    keys: Arc<RwLock<Vec<DecodingKey>>>,
    secret: Option<Arc<Rotating>>,
    validation: Validation,
}

/// The source of new keys, and the time of the last read, locked during a read.
struct Rotating {
    secret: KeySecret,
    read: Mutex<Option<Instant>>,
}

impl Tokens {
    /// Accepts unexpired tokens signed with this key.
    pub fn new(key: &[u8]) -> Result<Self, WeakKey> {
        Ok(Self { keys: Arc::new(RwLock::new(vec![checked(key)?])), secret: None, validation: validation() })
    }

    /// Accepts tokens signed with the current or the previous key of this secret.
    ///
    /// The secret is read when a request arrives.
    pub fn from_secret(secret: KeySecret) -> Self {
        let secret = Some(Arc::new(Rotating { secret, read: Mutex::default() }));
        Self { keys: Arc::default(), secret, validation: validation() }
    }

    /// Handles a request: 401 without exactly one token, 403 for an invalid token.
    pub async fn authorize(self, request: Request) -> Result<Authorization, Denied> {
        let mut tokens = request.query_string().get_all("Auth");
        let token = match (tokens.next(), tokens.next()) {
            (Some(token), None) if !token.is_empty() => token,
            _ => return Err(Denied::Unauthorized),
        };
        self.refresh(MAX_AGE).await;
        let claims = match self.claims(token).await {
            // The token may be signed with a new key.
            None if self.refresh(MIN_AGE).await => self.claims(token).await,
            claims => claims,
        };
        if self.keys.read().await.is_empty() {
            return Err("there are no keys to verify tokens with".into());
        }
        let claims = claims.ok_or(Denied::Forbidden)?;
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).ok_or(Denied::Forbidden)?;
        Authorization::allow(claims.sub).with_expiry(expires_at).with_context(&Session { org: claims.org })
    }

    async fn claims(&self, token: &str) -> Option<Claims> {
        let keys = self.keys.read().await;
        keys.iter().find_map(|key| decode(token, key, &self.validation).ok()).map(|data| data.claims)
    }

    /// Reads the secret unless it was read within `age`. Returns whether it tried to.
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
            // The known keys stay valid.
            Err(error) => tracing::error!(%error, "failed to read the secret with the keys"),
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
    // Allow only this algorithm, so that a token cannot choose how it is verified.
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
