//! Runs a chat locally, behind the local gateway, with a page to chat in.
//!
//! ```sh
//! cargo run --example chat --features local,hub,dynamodb
//! ```
//!
//! Open the URL that it prints in two tabs. Environment variables:
//!
//! | variable | value |
//! |---|---|
//! | `PORT` | the page's port; 0 for any free port. Default: 8080 |
//! | `CHAT_TABLE` | the DynamoDB table of the connections. Default: none, they are kept in memory |
//! | `AWS_ENDPOINT_URL_DYNAMODB` | the URL of a DynamoDB emulator; the table is created there if it does not exist |
//! | `CHAT_SWEEP_PERIOD` | the time in seconds within which a lost `$disconnect` is detected. Default: 10 |
//! | `CHAT_LOSES` | if set, every `$disconnect` is lost |

#[path = "authorizer.rs"]
#[allow(dead_code, reason = "it has its own `main`")]
mod authorizer;
#[path = "chat_function.rs"]
#[allow(dead_code, reason = "it has its own `main`")]
mod chat_function;

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io::{Write as _, stdout};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonwebtoken::{EncodingKey, Header, encode};
use lambda_websocket::event::{ApiId, Stage};
use lambda_websocket::hub::Hub;
use lambda_websocket::local::{Fault, Gateway, When};
use lambda_websocket::registry::{DynamoDb, InMemory, Namespace, Registry};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use self::authorizer::{Claims, Tokens};

const PAGE: &str = include_str!("chat/page.html");
const STYLE: &str = include_str!("chat/page.css");
const SCRIPT: &str = include_str!("chat/page.js");
const CONNECTION: &str = include_str!("chat/connection.js");
const STAGE: &str = "dev";
/// Timeout for reading the head of a browser's request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for reading the body of a browser's request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A user who wants to enter. A production chat has a login instead.
#[derive(Deserialize)]
struct Visitor {
    name: String,
}

#[derive(Serialize)]
struct Session {
    url: String,
}

/// Returns the registry selected by the environment.
async fn registry() -> Result<Arc<dyn Registry>, Box<dyn Error + Send + Sync>> {
    let Ok(table) = env::var("CHAT_TABLE") else { return Ok(Arc::new(InMemory::new())) };
    let registry = DynamoDb::new(table).await;
    if env::var_os("AWS_ENDPOINT_URL_DYNAMODB").is_some() {
        registry.create_table().await?;
    }
    Ok(Arc::new(registry))
}

fn number<T: std::str::FromStr>(variable: &str, unless_set: T) -> Result<T, String> {
    match env::var(variable) {
        Ok(text) => text.parse().map_err(|_| format!("{variable} must be a number, not {text:?}")),
        Err(_) => Ok(unless_set),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (port, period) = (number("PORT", 8080_u16)?, Duration::from_secs(number("CHAT_SWEEP_PERIOD", 10)?));
    let key: Arc<[u8]> = rand::random::<[u8; 32]>().into();
    let tokens = Tokens::new(&key)?;

    let builder = Gateway::builder(STAGE).bind(("127.0.0.1", 0))?;
    let pusher = builder.pusher();
    // Two sweeps per period, each of which checks every connection, detect a lost event in time.
    let interval = period.mul_f64(0.5).max(Duration::from_millis(100));
    // The local gateway opens a connection as soon as `$connect` completes.
    let hub = chat_function::settings(Hub::builder(registry().await?, pusher.clone()))
        .with_sweep_period(interval)
        .with_sweep_interval(interval)
        .with_grace(Duration::from_secs(1))
        .build();
    let gateway = builder
        .authorizer(move |request| tokens.clone().authorize(request), ["route.request.querystring.Auth"])
        .router(chat_function::routes(hub.clone(), pusher))
        .start()
        .await?;
    if env::var_os("CHAT_LOSES").is_some() {
        gateway.inject(Fault::DisconnectLost, When::Sometimes(1.0));
    }

    // On AWS, a scheduled function does this.
    let namespace = Namespace::for_stage(&ApiId::new("local")?, &Stage::new(STAGE)?);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let report = hub.sweep(&namespace).await;
            if !report.removed.is_empty() || report.unread.is_some() {
                tracing::info!(%report, "swept");
            }
        }
    });

    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    let page = format!("http://{}/", listener.local_addr()?);
    writeln!(stdout(), "Open {page} in two tabs. Press Ctrl-C to stop.")?;
    stdout().flush()?;
    let url: Arc<str> = gateway.url().into();
    tokio::select! {
        () = serve(listener, url, key) => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    gateway.shutdown().await;
    Ok(())
}

/// Serves the page, and issues tokens on request.
async fn serve(listener: TcpListener, url: Arc<str>, key: Arc<[u8]>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // For example, too many files are open.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (url, key) = (Arc::clone(&url), Arc::clone(&key));
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let (url, key) = (Arc::clone(&url), Arc::clone(&key));
                async move { Ok::<_, Infallible>(answer(request, &url, &key).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, url: &str, key: &[u8]) -> Response<Full<Bytes>> {
    const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => (StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned()),
        (&Method::GET, "/page.css") => (StatusCode::OK, "text/css; charset=utf-8", STYLE.to_owned()),
        (&Method::GET, "/page.js") => (StatusCode::OK, JAVASCRIPT, SCRIPT.to_owned()),
        (&Method::GET, "/connection.js") => (StatusCode::OK, JAVASCRIPT, CONNECTION.to_owned()),
        (&Method::POST, "/session") => match session(request, url, key).await {
            Ok(session) => (StatusCode::OK, "application/json", session),
            Err(why) => (StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", why),
        },
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "there is no such page".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The page connects to the gateway and has an icon in a `data:` URL; everything else is its own.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' {url}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Returns the URL to connect to, with a token that contains the name.
async fn session(request: Request<Incoming>, url: &str, key: &[u8]) -> Result<String, String> {
    let body = Limited::new(request.into_body(), 1000).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(|_| "the request takes too long".to_owned())?;
    let body = body.map_err(|error| error.to_string())?;
    let visitor: Visitor = serde_json::from_slice(&body.to_bytes()).map_err(|_| "expected {\"name\": …}".to_owned())?;
    let name = visitor.name.trim();
    if name.is_empty() || name.chars().count() > 32 || name.chars().any(char::is_control) {
        return Err("a name has 1 to 32 characters".to_owned());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let exp = now.saturating_add(Duration::from_secs(24 * 60 * 60)).as_secs();
    let claims = Claims { sub: name.to_owned(), org: 1, exp };
    let token =
        encode(&Header::default(), &claims, &EncodingKey::from_secret(key)).map_err(|error| error.to_string())?;
    serde_json::to_string(&Session { url: format!("{url}?Auth={token}") }).map_err(|error| error.to_string())
}
