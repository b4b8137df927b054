//! Runs the four functions unchanged behind a local gateway.
//!
//! ```sh
//! cargo run --example local --features local
//! ```
//!
//! `PORT` is the port; 0 for any free port. Default: 3001.

#[path = "authorizer.rs"]
#[allow(dead_code, reason = "it has a `main` of its own")]
pub mod authorizer;
#[path = "on_connect.rs"]
#[allow(dead_code, reason = "it has a `main` of its own")]
mod on_connect;
#[path = "on_disconnect.rs"]
#[allow(dead_code, reason = "it has a `main` of its own")]
mod on_disconnect;
#[path = "push_to_websocket.rs"]
#[allow(dead_code, reason = "it has a `main` of its own")]
mod push_to_websocket;

use std::env;
use std::error::Error;
use std::io::{Write as _, stdout};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use lambda_websocket::event::Region;
use lambda_websocket::local::{Gateway, GatewayBuilder};
use lambda_websocket::push::Sdk;
use lambda_websocket::{Pusher, Router};

use self::authorizer::{Claims, Tokens};
use self::on_connect::OnConnect;
use self::on_disconnect::OnDisconnect;

/// Starts the API with its four functions.
pub async fn start(port: u16, key: &[u8]) -> Result<Gateway, Box<dyn Error>> {
    Ok(set_up(port, key)?.start().await?)
}

fn set_up(port: u16, key: &[u8]) -> Result<GatewayBuilder, Box<dyn Error>> {
    let gateway = Gateway::builder("dev").bind(("127.0.0.1", port))?;
    // Use the AWS SDK, as on AWS: it signs requests, and the local gateway accepts any signature.
    let endpoint = gateway.endpoint().ok_or("the gateway has no address")?;
    let transport = Sdk::with_static_credentials(&endpoint, &Region::new("us-east-1")?, "local", "local");
    let pusher = Pusher::new(transport);
    let tokens = Tokens::new(key)?;
    let gateway = gateway
        .authorizer(move |request| tokens.clone().authorize(request), ["route.request.querystring.Auth"])
        .router(Router::new().route(OnConnect))
        .router(Router::new().route(OnDisconnect))
        .router(push_to_websocket::router(pusher));
    Ok(gateway)
}

/// Creates a token that is valid for this long.
pub fn token(key: &[u8], good_for: Duration) -> Result<String, Box<dyn Error>> {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_add(good_for).as_secs();
    let claims = Claims { sub: "alice".to_owned(), org: 7, exp };
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(key))?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| format!("PORT must be a number from 0 to 65535, not {port:?}"))?,
        Err(_) => 3001,
    };
    // By default, use a random key for this run only.
    let key = env::var("JWT_KEY").map_or_else(|_| random_key(), String::into_bytes);
    // Print a line for everything that happens, and why.
    let gateway = set_up(port, &key)?.verbose().start().await?;
    let token = token(&key, Duration::from_secs(24 * 60 * 60))?;
    let mut out = stdout().lock();
    writeln!(out, "The four functions run behind {}. Connect, for a day with this token:\n", gateway.url())?;
    writeln!(out, "    npx wscat -c '{}?Auth={token}'\n", gateway.url())?;
    writeln!(out, "and send what selects the route `pushtowebsocket`:\n")?;
    writeln!(out, "    {{\"action\":\"pushtowebsocket\",\"message\":\"hello\",\"id\":7}}\n")?;
    writeln!(out, "Any AWS SDK pushes through {}. Ctrl-C stops it all.", gateway.endpoint())?;
    out.flush()?;
    drop(out);
    tokio::signal::ctrl_c().await?;
    eprintln!("stopping: every connection is closed with 1001");
    gateway.shutdown().await;
    Ok(())
}

fn random_key() -> Vec<u8> {
    rand::random::<[u8; 32]>().to_vec()
}
