//! Who may connect? A REQUEST authorizer that reads a JSON Web Token from `?Auth=`.
//!
//! ```sh
//! cargo build --release --example authorizer --no-default-features --features runtime
//! ```
//!
//! `JWT_KEY` is the key that tokens are signed with by HMAC-SHA-256, at least 32 bytes.

use std::env;
use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use lambda_websocket::authorizer::{self, Authorization, Denied, Request};
use serde::{Deserialize, Serialize};

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

/// Knows which tokens are good.
#[derive(Clone)]
pub struct Tokens {
    key: DecodingKey,
    validation: Validation,
}

impl Tokens {
    /// Believes tokens that are signed with this key and not expired.
    pub fn new(key: &[u8]) -> Result<Self, WeakKey> {
        if key.len() < 32 {
            return Err(WeakKey { length: key.len() });
        }
        // Only this algorithm: a token must not choose how it is checked.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        Ok(Self { key: DecodingKey::from_secret(key), validation })
    }

    /// The handler: 401 without exactly one token, 403 for a token that is not good.
    pub async fn authorize(self, request: Request) -> Result<Authorization, Denied> {
        let mut tokens = request.query_string().get_all("Auth");
        let token = match (tokens.next(), tokens.next()) {
            (Some(token), None) if !token.is_empty() => token,
            _ => return Err(Denied::Unauthorized),
        };
        let claims: Claims = decode(token, &self.key, &self.validation).map_err(|_| Denied::Forbidden)?.claims;
        Authorization::allow(claims.sub).with_context(&Session { org: claims.org })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let tokens = Tokens::new(env::var("JWT_KEY").unwrap_or_default().as_bytes())?;
    authorizer::run(move |request| tokens.clone().authorize(request)).await
}
