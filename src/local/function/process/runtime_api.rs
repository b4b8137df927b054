//! The Lambda Runtime API for one process.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::FunctionError;
use super::super::endpoint::reported;
use super::instance::{Asking, Instance};
use crate::clock;
use crate::quotas::MAX_FUNCTION_RESPONSE_BYTES;

pub(super) async fn serve(stream: TcpStream, instance: Arc<Instance>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let instance = Arc::clone(&instance);
        async move { Ok::<_, Infallible>(answer(&instance, request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(instance: &Arc<Instance>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
    match (&head.method, path.as_slice()) {
        (&Method::GET, ["2018-06-01", "runtime", "invocation", "next"]) => next(instance).await,
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "response"]) => {
            match Limited::new(body, MAX_FUNCTION_RESPONSE_BYTES).collect().await {
                Ok(body) => finish(instance, id, Ok(body.to_bytes().into())),
                Err(error) if error.is::<LengthLimitError>() => {
                    let text = format!("the answer has more than {MAX_FUNCTION_RESPONSE_BYTES} bytes");
                    let error = FunctionError::new("Function.ResponseSizeTooLarge", text.clone());
                    instance.finish(id, Err(error));
                    refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &text)
                }
                Err(_) => {
                    let text = "the answer broke off";
                    instance.finish(id, Err(FunctionError::new("Runtime.TruncatedResponse", text)));
                    refuse(StatusCode::BAD_REQUEST, "TruncatedResponse", text)
                }
            }
        }
        (&Method::POST, ["2018-06-01", "runtime", "invocation", id, "error"]) => {
            finish(instance, id, Err(reported_in(body).await))
        }
        (&Method::POST, ["2018-06-01", "runtime", "init", "error"]) => {
            instance.init_error(reported_in(body).await);
            accepted()
        }
        _ => refuse(StatusCode::NOT_FOUND, "NotFound", "the Runtime API has no such path"),
    }
}

async fn next(instance: &Arc<Instance>) -> Response<Full<Bytes>> {
    match instance.ask() {
        Asking::Yes => {}
        Asking::Never => return pending().await,
        Asking::No => {
            let text = "the invocation before has not ended, or another request for the next one is open";
            return refuse(StatusCode::FORBIDDEN, "InvalidStateTransition", text);
        }
    }
    // If the request is dropped, the process no longer waits for an invocation.
    let asking = StopAsking(instance);
    let job = instance.shared.next_job().await;
    let request_id = job.invocation.request_id.clone();
    let now = clock::now();
    let (limit, payload) = instance.begin(job);
    drop(asking);
    let deadline = now.checked_add(limit).unwrap_or(now).duration_since(UNIX_EPOCH).unwrap_or_default();
    let (high, low) = (rand::random::<u32>(), rand::random::<u64>());
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() & 0xffff_ffff;
    let response = Response::builder()
        .header("lambda-runtime-aws-request-id", request_id)
        .header("lambda-runtime-deadline-ms", deadline.as_millis().to_string())
        .header("lambda-runtime-invoked-function-arn", instance.shared.process.arn())
        .header("lambda-runtime-trace-id", format!("Root=1-{since:08x}-{high:08x}{low:016x};Sampled=0"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(payload));
    let unusable =
        |_| refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the invocation has no legal header");
    response.unwrap_or_else(unusable)
}

struct StopAsking<'a>(&'a Instance);

impl Drop for StopAsking<'_> {
    fn drop(&mut self) {
        self.0.stop_asking();
    }
}

/// Finishes an invocation, unless this process does not have it.
fn finish(instance: &Instance, id: &str, outcome: Result<Vec<u8>, FunctionError>) -> Response<Full<Bytes>> {
    match instance.finish(id, outcome) {
        true => accepted(),
        false => refuse(StatusCode::BAD_REQUEST, "InvalidRequestID", "the process does not have this invocation"),
    }
}

async fn reported_in(body: Incoming) -> FunctionError {
    match Limited::new(body, MAX_FUNCTION_RESPONSE_BYTES).collect().await {
        Ok(body) => reported(&body.to_bytes()),
        Err(_) => FunctionError::new("Unhandled", "the function's error broke off"),
    }
}

fn accepted() -> Response<Full<Bytes>> {
    json(StatusCode::ACCEPTED, r#"{"status":"OK"}"#.to_owned())
}

/// Responds with an error in the format that AWS's runtime clients read.
fn refuse(status: StatusCode, error_type: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, serde_json::json!({"errorMessage": message, "errorType": error_type}).to_string())
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
