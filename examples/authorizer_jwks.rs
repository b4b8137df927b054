//! A REQUEST authorizer for tokens of an identity provider.
//!
//! Such providers are Amazon Cognito, Auth0, and Keycloak.
//!
//! ```sh
//! cargo build --release --example authorizer_jwks --no-default-features --features runtime
//! ```
//!
//! The token is sent as `?Auth=` or as the subprotocol `bearer.<token>`. Environment variables:
//!
//! | variable | value |
//! |---|---|
//! | `JWKS_URL` | the URL of the provider's keys, such as `https://cognito-idp.<region>.amazonaws.com/<pool>/.well-known/jwks.json` |
//! | `JWT_ISSUER` | the `iss` claim of its tokens |
//! | `JWT_AUDIENCE` | the `aud` claim of tokens for this API |
//! | `ORIGINS` | the origins whose pages may connect, separated by commas. Default: all origins |

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use lambda_websocket::authorizer::{self, AllowedOrigins, Authorization, Denied, Request};
use serde::Deserialize;
use tokio::sync::{Mutex, RwLock};
use tokio::time::{Instant, timeout};

type BoxError = Box<dyn Error + Send + Sync>;

/// A token must not choose how it is verified. A public key must never serve as a shared secret.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::ES256, Algorithm::PS256, Algorithm::EdDSA];
/// Minimum time between two fetches, so that clients with invented key ids cannot force more.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Shorter than API Gateway waits for an authorizer, so that clients do not wait that long.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_JWKS_BYTES: usize = 256 * 1024;

/// The claims of a token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// When the token expires, in seconds since 1970.
    exp: u64,
}

/// The provider's keys by key id.
type Keys = HashMap<String, (DecodingKey, Algorithm)>;

/// Verifies tokens with the provider's keys.
#[derive(Clone)]
pub struct Provider {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: http::Uri,
    validation: Arc<Validation>,
    keys: Arc<RwLock<Keys>>,
    /// When the keys were fetched. Locked during a fetch.
    fetched: Arc<Mutex<Instant>>,
}

impl Provider {
    /// Creates a provider and fetches its keys, so that a wrong URL fails at startup.
    pub async fn new(url: &str, issuer: &str, audience: &str) -> Result<Self, BoxError> {
        let url: http::Uri = url.parse().map_err(|error| format!("JWKS_URL: {error}"))?;
        let builder =
            HttpsConnectorBuilder::new().with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?;
        let is_local = matches!(url.host(), Some("127.0.0.1" | "localhost"));
        let builder = if is_local { builder.https_or_http() } else { builder.https_only() };
        let client = Client::builder(TokioExecutor::new()).build(builder.enable_http1().build());
        // For each token, the algorithm is replaced by that of its key.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.algorithms = ALGORITHMS.to_vec();
        validation.leeway = 0;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let (validation, keys) = (Arc::new(validation), Arc::default());
        let provider = Self { client, url, validation, keys, fetched: Arc::new(Mutex::new(Instant::now())) };
        *provider.keys.write().await = provider.fetch().await?;
        Ok(provider)
    }

    async fn fetch(&self) -> Result<Keys, BoxError> {
        let response = timeout(FETCH_TIMEOUT, self.client.get(self.url.clone())).await??;
        if !response.status().is_success() {
            return Err(format!("{} returned {}", self.url, response.status()).into());
        }
        let body = timeout(FETCH_TIMEOUT, Limited::new(response.into_body(), MAX_JWKS_BYTES).collect()).await??;
        let set: JwkSet = serde_json::from_slice(&body.to_bytes())?;
        let mut keys = Keys::new();
        for jwk in &set.keys {
            let (Some(id), Some(algorithm)) = (&jwk.common.key_id, jwk.common.key_algorithm) else { continue };
            let Ok(algorithm) = algorithm.to_string().parse::<Algorithm>() else { continue };
            if ALGORITHMS.contains(&algorithm) {
                keys.insert(id.clone(), (DecodingKey::from_jwk(jwk)?, algorithm));
            }
        }
        if keys.is_empty() { Err(format!("{} has no usable key", self.url).into()) } else { Ok(keys) }
    }

    /// Returns the key with this id.
    ///
    /// An unknown id may belong to a new key, so the keys are fetched again, but not more often
    /// than [`REFRESH_INTERVAL`].
    async fn key(&self, id: &str) -> Option<(DecodingKey, Algorithm)> {
        if let Some(key) = self.keys.read().await.get(id) {
            return Some(key.clone());
        }
        // Clients whose keys are known do not wait for this lock.
        let mut fetched = self.fetched.lock().await;
        let is_known = self.keys.read().await.contains_key(id);
        if !is_known && fetched.elapsed() >= REFRESH_INTERVAL {
            *fetched = Instant::now();
            match self.fetch().await {
                Ok(keys) => *self.keys.write().await = keys,
                Err(error) => tracing::error!(%error, "failed to fetch the provider's keys"),
            }
        }
        self.keys.read().await.get(id).cloned()
    }

    /// Handles a request: 401 without exactly one token, 403 for an invalid token.
    pub async fn authorize(&self, request: &Request) -> Result<Authorization, Denied> {
        let token = request.token("Auth")?;
        let id = decode_header(token).map_err(|_| Denied::Forbidden)?.kid.ok_or(Denied::Forbidden)?;
        let (key, algorithm) = self.key(&id).await.ok_or(Denied::Forbidden)?;
        let mut validation = (*self.validation).clone();
        validation.algorithms = vec![algorithm];
        let claims = decode::<Claims>(token, &key, &validation).map_err(|_| Denied::Forbidden)?.claims;
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).ok_or(Denied::Forbidden)?;
        Ok(Authorization::allow(claims.sub).with_expiry(expires_at))
    }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} must be set"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().without_time().with_ansi(false).init();
    let (issuer, audience) = (variable("JWT_ISSUER")?, variable("JWT_AUDIENCE")?);
    let provider = Provider::new(&variable("JWKS_URL")?, &issuer, &audience).await?;
    let origins =
        env::var("ORIGINS").ok().map(|list| AllowedOrigins::new(list.split(',').map(str::trim))).transpose()?;
    authorizer::run(move |request| {
        let (provider, origins) = (provider.clone(), origins.clone());
        async move {
            if let Some(origins) = origins {
                origins.check(&request)?;
            }
            provider.authorize(&request).await
        }
    })
    .await
}
