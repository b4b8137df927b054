//! Layers around routes, and merged and nested routers.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use lambda_websocket::event::ConnectionId;
use lambda_websocket::route::{Error, Next, State, StatusCode};
use lambda_websocket::{Event, Json, Message, Response, Result, Router};
use tower::timeout::TimeoutLayer;
use tower::{Layer, Service};

use super::{panic_text, status};
use crate::fixture;

type Log = Arc<Mutex<Vec<String>>>;

/// A user-defined layer: it allows n messages per connection.
#[derive(Clone)]
struct Limit {
    most: usize,
    passed: Arc<Mutex<std::collections::HashMap<ConnectionId, usize>>>,
}

#[derive(Clone)]
struct Limited<T> {
    limit: Limit,
    inner: T,
}

impl<T> Layer<T> for Limit {
    type Service = Limited<T>;

    fn layer(&self, inner: T) -> Limited<T> {
        Limited { limit: self.clone(), inner }
    }
}

impl<T> Service<Event> for Limited<T>
where
    T: Service<Event, Response = Response>,
    T::Error: Into<Error>,
    T::Future: Send + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, event: Event) -> Self::Future {
        let mut passed = self.limit.passed.lock().unwrap();
        let passed = passed.entry(event.request_context().connection_id.clone()).or_default();
        *passed += 1;
        if *passed > self.limit.most {
            return Box::pin(async { Err(Error::client(StatusCode::TOO_MANY_REQUESTS, "slow down")) });
        }
        let answer = self.inner.call(event);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}

fn logging(
    log: &Log,
    name: &'static str,
) -> impl Fn(Event, Next) -> futures_util::future::BoxFuture<'static, Result<Response>> + Clone + use<> {
    let log = Arc::clone(log);
    move |event, next| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            log.lock().unwrap().push(format!("{name} in"));
            let answer = next.run(event).await;
            log.lock().unwrap().push(format!("{name} out"));
            answer
        })
    }
}

#[tokio::test]
async fn later_layer_wraps_earlier_layers_and_routes() {
    let log = Log::default();
    let said = Arc::clone(&log);
    let router = Router::new()
        .on("say", move |_: Message| {
            said.lock().unwrap().push("say".to_owned());
            async { Ok(()) }
        })
        .middleware(logging(&log, "first"))
        .on("bare", |_: Message| async { Ok(()) })
        .middleware(logging(&log, "second"));
    assert_eq!(status(&router, fixture::message("say", "")).await, 200);
    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), ["second in", "first in", "say", "first out", "second out"]);
    assert_eq!(status(&router, fixture::message("bare", "")).await, 200);
    assert_eq!(*log.lock().unwrap(), ["second in", "second out"]);
}

#[tokio::test]
async fn limiting_layer_responds_with_a_client_error() {
    let limit = Limit { most: 2, passed: Arc::default() };
    let router =
        Router::new().on("say", |_: Message| async { Ok(()) }).on("shout", |_: Message| async { Ok(()) }).layer(limit);
    assert_eq!(status(&router, fixture::message("say", "")).await, 200);
    assert_eq!(status(&router, fixture::message("shout", "")).await, 200, "the layer is one for both");
    let refused = router.handle(fixture::message("say", "")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.text().unwrap().contains("slow down"));
    assert_eq!(status(&router, fixture::message("unknown", "")).await, 404);
}

#[tokio::test(start_paused = true)]
async fn layer_of_a_merged_router_wraps_only_its_routes() {
    let slow = |_: Message| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok(())
    };
    let limited = Router::new().on("limited", slow).layer(TimeoutLayer::new(Duration::from_secs(5)));
    let router = Router::new().on("patient", slow).merge(limited);
    assert_eq!(status(&router, fixture::message("patient", "")).await, 200);
    assert_eq!(
        status(&router, fixture::message("limited", "")).await,
        500,
        "a timeout of tower's is no client's mistake"
    );
}

#[tokio::test]
async fn client_errors_pass_through_layers() {
    let router = Router::new()
        .on("teapot", |_: Message| async { Err::<(), _>(Error::client(StatusCode::IM_A_TEAPOT, "short and stout")) })
        .on("body", |_: Json<u8>| async { Ok(()) })
        .layer(TimeoutLayer::new(Duration::from_secs(5)))
        .layer(TimeoutLayer::new(Duration::from_secs(6)));
    let refused = router.handle(fixture::message("teapot", "")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::IM_A_TEAPOT);
    assert!(refused.text().unwrap().contains("short and stout"));
    assert_eq!(status(&router, fixture::message("body", "x")).await, 400, "a rejection stays one");
}

#[tokio::test]
async fn merged_and_nested_routers_keep_their_states() {
    let name = |name: State<&'static str>| async move { Ok(Json(*name)) };
    let rooms = Router::with_state("rooms").on("join", name);
    let router = Router::with_state("outer")
        .on("who", name)
        .merge(Router::with_state("merged").on("merged", name))
        .nest("room.", rooms.clone())
        .nest("club.", rooms);
    let keys: Vec<&str> = router.keys().collect();
    assert_eq!(keys, ["club.join", "merged", "room.join", "who"]);
    for (key, state) in
        [("who", "\"outer\""), ("merged", "\"merged\""), ("room.join", "\"rooms\""), ("club.join", "\"rooms\"")]
    {
        assert_eq!(router.handle(fixture::message(key, "")).await.unwrap().text(), Some(state));
    }
    assert_eq!(status(&router, fixture::message("join", "")).await, 404);
}

#[test]
fn merging_conflicting_routers_panics() {
    let with = |key: &'static str| move || Router::new().on(key, || async { Ok(()) });
    for (build, expected) in [
        (
            Box::new(move || with("a")().merge(with("a")())) as Box<dyn FnOnce() -> Router + std::panic::UnwindSafe>,
            "route \"a\": the router already has a route with this key",
        ),
        (
            Box::new(move || with("x.a")().nest("x.", with("a")())),
            "route \"x.a\": the router already has a route with this key",
        ),
        (
            Box::new(move || with("a")().nest("x.", with("$default")())),
            "route \"$default\": a predefined route cannot have a prefix",
        ),
    ] {
        let (text, place) = panic_text(build);
        assert_eq!(text, expected);
        assert!(place.contains("layers.rs"), "{place}");
    }
    let (text, _) = panic_text(move || with("a")().merge(with("b")().fail_invocation_on_error()));
    assert_eq!(text, "a nested or merged router must not have settings: set them on the outer router");
    let (text, _) = panic_text(move || Router::new().nest(&"x".repeat(128), with("a")()));
    assert!(text.contains("1 to 128 bytes"), "{text}");
}
