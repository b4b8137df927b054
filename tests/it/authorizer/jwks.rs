//! The example `authorizer_jwks`: tokens of an identity provider that rotates its keys.

#[path = "../../../examples/authorizer_jwks.rs"]
#[allow(dead_code, reason = "it has its own `main`")]
mod authorizer_jwks;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use lambda_websocket::authorizer::{Denied, Request};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use self::authorizer_jwks::Provider;
use crate::fixture;

const ISSUER: &str = "https://login.example.com";
const AUDIENCE: &str = "chat";

fn key() -> EncodingKey {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    EncodingKey::from_ec_der(&pair.serialize_der())
}

/// Returns the public key as the provider publishes it.
fn published(id: &str, key: &EncodingKey) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    jwk.common.key_algorithm = Some(KeyAlgorithm::ES256);
    serde_json::to_value(jwk).unwrap()
}

async fn publish(server: &MockServer, keys: &[Value]) {
    server.reset().await;
    Mock::given(path("/jwks.json"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"keys": keys})))
        .mount(server)
        .await;
}

fn claims() -> Value {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
    json!({"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": exp})
}

fn token(id: &str, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(id.to_owned());
    encode(&header, claims, key).unwrap()
}

async fn status(provider: &Provider, token: &str) -> u16 {
    let mut event = fixture::json("authorizer");
    event["queryStringParameters"] = json!({"Auth": token});
    event["multiValueQueryStringParameters"] = json!({"Auth": [token]});
    let request = Request::from_slice(&serde_json::to_vec(&event).unwrap()).unwrap();
    match provider.authorize(&request).await {
        Ok(authorization) => {
            let response = authorization.respond(request.method_arn()).unwrap();
            assert_eq!(response.principal_id(), "alice");
            assert_eq!(response.context().iter().map(|(name, _)| name).collect::<Vec<_>>(), ["authorizationExpiresAt"]);
            200
        }
        Err(Denied::Unauthorized) => 401,
        Err(Denied::Forbidden) => 403,
        Err(other) => panic!("{other:?}"),
    }
}

async fn provider(server: &MockServer) -> Provider {
    Provider::new(&format!("{}/jwks.json", server.uri()), ISSUER, AUDIENCE).await.unwrap()
}

#[tokio::test]
async fn token_is_verified_with_the_key_it_names() {
    let (server, old, foreign) = (MockServer::start().await, key(), key());
    publish(&server, &[published("old", &old)]).await;
    let provider = provider(&server).await;
    let good = token("old", &old, &claims());
    assert_eq!(status(&provider, &good).await, 200);
    assert_eq!(status(&provider, "").await, 401);
    let changed = |member: &str, value: Value| {
        let mut claims = claims();
        claims[member] = value;
        token("old", &old, &claims)
    };
    let without_key = encode(&Header::new(Algorithm::ES256), &claims(), &old).unwrap();
    // Algorithm confusion: the public key used as an HMAC secret. A verifier that trusts the token's `alg` accepts it.
    let mut confused = Header::new(Algorithm::HS256);
    confused.kid = Some("old".to_owned());
    let public = published("old", &old).to_string();
    let confused = encode(&confused, &claims(), &EncodingKey::from_secret(public.as_bytes())).unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIiwia2lkIjoib2xkIn0.{}.", good.split('.').nth(1).unwrap());
    for (bad, why) in [
        (token("old", &foreign, &claims()), "signed with another key"),
        (token("new", &old, &claims()), "an unknown key"),
        (changed("iss", json!("https://evil.example")), "another issuer"),
        (changed("aud", json!("mail")), "another audience"),
        (changed("exp", json!(1)), "expired"),
        (without_key, "names no key"),
        (confused, "another algorithm"),
        (unsigned, "no algorithm"),
        (good[..good.len() - 2].to_owned(), "cut off"),
        ("x.y.z".to_owned(), "no token"),
    ] {
        assert_eq!(status(&provider, &bad).await, 403, "{why}");
    }
}

#[tokio::test]
async fn rotated_keys_are_fetched_at_most_once_a_minute() {
    let (server, old, new) = (MockServer::start().await, key(), key());
    publish(&server, &[published("old", &old)]).await;
    let provider = provider(&server).await;
    publish(&server, &[published("old", &old), published("new", &new)]).await;
    let (by_old, by_new) = (token("old", &old, &claims()), token("new", &new, &claims()));
    assert_eq!(status(&provider, &by_new).await, 403, "the keys have just been fetched");
    assert_eq!(server.received_requests().await.unwrap().len(), 0);

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(status(&provider, &by_new).await, 200);
    for _ in 0..20 {
        assert_eq!(status(&provider, &token("invented", &new, &claims())).await, 403);
    }
    assert_eq!(status(&provider, &by_old).await, 200, "clients with old tokens are still let in");
    assert_eq!(server.received_requests().await.unwrap().len(), 1);

    // An unavailable provider does not invalidate cached keys.
    server.reset().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(status(&provider, &token("invented", &new, &claims())).await, 403);
    assert_eq!(status(&provider, &by_new).await, 200);
}

#[tokio::test]
async fn missing_provider_keys_fail_at_startup() {
    let server = MockServer::start().await;
    let start = async || Provider::new(&format!("{}/jwks.json", server.uri()), ISSUER, AUDIENCE).await.err().unwrap();
    assert!(start().await.to_string().ends_with("returned 404 Not Found"), "{}", start().await);
    publish(&server, &[]).await;
    assert!(start().await.to_string().ends_with("has no usable key"), "{}", start().await);
}
