//! HTTP: WebSocket upgrades and `@connections`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::payload::Handshake;
use super::super::rules::too_large;
use super::deflate::Deflate;
use super::head::{Head, Tap};
use super::keep_alive::KeepAlive;
use super::{Answer, Hosts, Phase, Request as Managed, Shared, Verdict, socket, until};
use crate::clock;
use crate::event::Stage;
use crate::push::MAX_PAYLOAD_BYTES;
use crate::quotas::MAX_URL_BYTES;

/// The timeout for the head of a request, and for the next request on a connection.
///
/// Clients keep their connections open for up to 90 seconds.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// The timeout for the body of a push.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read.
///
/// A client that is still writing would not read the response.
const MAX_SWALLOWED: usize = 64 * 1024 * 1024;

type HttpResponse = Response<Full<Bytes>>;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, watched: watch::Receiver<Phase>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(until(
                    Phase::Stopped,
                    watched.clone(),
                    serve(stream, peer, Arc::clone(&shared), watched.clone()),
                ));
            }
            Err(error) => {
                // Probably out of file descriptors: some will be free again.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, mut watched: watch::Receiver<Phase>) {
    let _ = stream.set_nodelay(true);
    // A shutdown waits until the current request has a response.
    let _alive = shared.lock().alive.clone();
    let keep_alive = KeepAlive::new(&shared);
    let requests = Arc::clone(&keep_alive);
    let port = stream.local_addr().map_or(0, |address| address.port());
    let (stream, head) = Tap::new(stream);
    let phase = watched.clone();
    let service = service_fn(move |request| {
        let client = Client { peer, port, head: head.clone(), watched: phase.clone() };
        let (shared, requests) = (Arc::clone(&shared), Arc::clone(&requests));
        async move {
            requests.begin();
            let response = answer(&shared, client, request).await;
            requests.answer();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let closing = async { drop(watched.wait_for(|phase| *phase >= Phase::Closing).await) };
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = closing => None,
        () = keep_alive.surplus() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// The client that sends a request, and its connection.
struct Client {
    peer: SocketAddr,
    port: u16,
    head: Head,
    watched: watch::Receiver<Phase>,
}

async fn answer(shared: &Arc<Shared>, client: Client, request: Request<Incoming>) -> HttpResponse {
    // HTTP/1.1 and the WebSocket handshake both require exactly one host.
    let host = Hosts::of(request.headers()).filter(|_| request.version() == Version::HTTP_11);
    let Some(host) = host else { return plain(StatusCode::BAD_REQUEST, r#"{"message":"Bad Request"}"#) };
    // MGT-5
    if !shared.hosts.has(host) {
        tracing::warn!("a request for another host is refused: allow its name with GatewayBuilder::allow_host");
        return forbidden();
    }
    let path = request.uri().path().trim_start_matches('/');
    let segments: Option<Vec<String>> =
        path.split('/').map(|segment| Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned())).collect();
    let segments = segments.unwrap_or_default();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    // MGT-5: any request for another stage is forbidden.
    let stage = segments
        .first()
        .and_then(|stage| Stage::new(stage).ok())
        .filter(|stage| shared.lock().machine.has_stage(stage.as_str()));
    let Some(stage) = stage else { return forbidden() };
    match segments.as_slice() {
        [_, "@connections", ..] if shared.hosts.is_cross_site(request.headers()) => {
            tracing::warn!("a page of another site calls @connections, and is refused");
            forbidden()
        }
        [_, "@connections", id @ ..] => manage(shared, &stage, &id.join("/"), request, client.watched).await,
        [_] | [_, ""] if is_upgrade(request.headers()) => upgrade(shared, client, stage, request).await,
        // CON-8
        [_] | [_, ""] => {
            let mut response = plain(StatusCode::UPGRADE_REQUIRED, r#"{"message":"Upgrade Required"}"#);
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            response
        }
        _ => forbidden(),
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// Handles an upgrade, which waits for the authorizer and `$connect` (CON-1).
async fn upgrade(shared: &Arc<Shared>, client: Client, stage: Stage, mut request: Request<Incoming>) -> HttpResponse {
    if request.uri().to_string().len() > MAX_URL_BYTES {
        return plain(StatusCode::URI_TOO_LONG, r#"{"message":"URI Too Long"}"#);
    }
    let version = request.headers().get(SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        let mut response = plain(StatusCode::BAD_REQUEST, r#"{"message":"Bad Request"}"#);
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let is_key = |key: &HeaderValue| STANDARD.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16);
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).cloned();
    let (Some(key), &Method::GET) = (key, request.method()) else {
        return plain(StatusCode::BAD_REQUEST, r#"{"message":"Bad Request"}"#);
    };
    // CON-7
    let deflate = shared.compresses.then(|| Deflate::negotiate(request.headers())).flatten();
    let upgraded = hyper::upgrade::on(&mut request);
    let unavailable = || plain(StatusCode::SERVICE_UNAVAILABLE, r#"{"message":"Service Unavailable"}"#);
    let Some((connection, verdict, link)) = shared.upgrade(stage, handshake(&request, &client)) else {
        return unavailable();
    };
    // Spawned before the verdict: a client that leaves meanwhile ends this function, but not that
    // task.
    let socket = socket::run(Arc::clone(shared), connection, upgraded, deflate, link);
    let socket = tokio::spawn(until(Phase::Stopped, client.watched, socket));
    match verdict.await {
        Ok(Verdict::Accepted { subprotocol }) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
            if let Some(deflate) = deflate {
                headers.insert(SEC_WEBSOCKET_EXTENSIONS, deflate.answer());
            }
            if let Some(Ok(subprotocol)) = subprotocol.map(|subprotocol| HeaderValue::from_str(&subprotocol)) {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
            }
            response
        }
        Ok(Verdict::Refused(refusal)) => {
            socket.abort();
            respond(Answer { status: refusal.status, error_type: refusal.error_type, body: refusal.body })
        }
        Err(_) => {
            socket.abort();
            unavailable()
        }
    }
}

/// Returns the handshake, with headers as the client wrote them (EVT-11).
fn handshake(request: &Request<Incoming>, client: &Client) -> Handshake {
    let headers = client.head.headers(request.method(), request.headers()).unwrap_or_else(|| {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    });
    let query = request.uri().query().unwrap_or_default();
    Handshake {
        headers,
        query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        source_ip: client.peer.ip(),
        source_port: client.peer.port(),
        port: client.port,
    }
}

async fn manage(
    shared: &Arc<Shared>,
    stage: &Stage,
    id: &str,
    request: Request<Incoming>,
    mut watched: watch::Receiver<Phase>,
) -> HttpResponse {
    let (head, body) = request.into_parts();
    let body = match timeout(BODY_TIMEOUT, read(body)).await {
        Ok(Ok(Some(body))) => body,
        // MGT-6
        Ok(Ok(None)) => return respond(Answer::of(Err(too_large()))),
        Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, r#"{"message":"Bad Request"}"#),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, r#"{"message":"Request Timeout"}"#),
    };
    if let Some(keys) = &shared.keys
        && let Err(refusal) = keys.check(&head, &body, clock::now())
    {
        return respond(Answer::of(Err(refusal)));
    }
    let managed = match head.method {
        Method::POST => Managed::Post(body),
        Method::GET => Managed::Get,
        Method::DELETE => Managed::Delete,
        _ => return forbidden(),
    };
    match shared.manage(Some(stage.as_str()), id, managed) {
        Some(answer) => respond(answer),
        // Waits until the caller gives up or the gateway shuts down.
        None => {
            let _ = watched.wait_for(|phase| *phase >= Phase::Closing).await;
            plain(StatusCode::SERVICE_UNAVAILABLE, r#"{"message":"Service Unavailable"}"#)
        }
    }
}

/// Reads a body to its end, or returns `None` if it exceeds the payload limit.
async fn read(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let (mut payload, mut size) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        size = size.saturating_add(data.len());
        if size > MAX_SWALLOWED {
            break;
        }
        if size <= MAX_PAYLOAD_BYTES {
            payload.extend_from_slice(&data);
        }
    }
    Ok((size <= MAX_PAYLOAD_BYTES).then(|| payload.freeze()))
}

fn forbidden() -> HttpResponse {
    respond(Answer {
        status: 403,
        error_type: Some("ForbiddenException"),
        body: r#"{"message":"Forbidden"}"#.to_owned(),
    })
}

fn plain(status: StatusCode, body: &'static str) -> HttpResponse {
    respond(Answer { status: status.as_u16(), error_type: None, body: body.to_owned() })
}

fn respond(answer: Answer) -> HttpResponse {
    let has_body = !answer.body.is_empty();
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if has_body {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(error_type) = answer.error_type {
        response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(error_type));
    }
    response
}
