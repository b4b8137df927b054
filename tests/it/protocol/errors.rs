//! Mapping errors by type, and which error of a chain decides.

use std::fmt;

use lambda_websocket::event::InvalidId;
use lambda_websocket::route::{Error, ErrorCode, FailureKind};
use lambda_websocket::{Message, Router};
use serde_json::json;

use super::{hook, reply, shown};

#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    #[error("sold out")]
    SoldOut,
    #[error("the warehouse does not answer")]
    Warehouse,
}

/// An error that wraps another.
#[derive(Debug)]
struct While<E>(E);

impl<E> fmt::Display for While<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("while buying")
    }
}

impl<E: std::error::Error + 'static> std::error::Error for While<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

pub fn mapped(error: &ShopError) -> Option<Error> {
    match error {
        ShopError::SoldOut => Some(Error::client(ErrorCode::CONFLICT, error).with_details(&json!({"left": 0}))),
        ShopError::Warehouse => None,
    }
}

fn failing(error: impl Fn() -> Error + Send + Sync + 'static) -> Router {
    Router::new().on("$default", move |_: Message| std::future::ready(Err::<(), _>(error()))).map_error(mapped)
}

async fn code(router: &Router) -> String {
    let reply = reply(router, "$default", r#"{"id":1}"#).await;
    assert_eq!(reply["id"], 1);
    reply["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn map_error_maps_custom_error_types() {
    let expected = json!({"id": 1, "error": {"code": "conflict", "message": "sold out", "details": {"left": 0}}});
    for error in [
        || ShopError::SoldOut.into(),
        || While(While(ShopError::SoldOut)).into(),
        || Error::message("outer").with_source(ShopError::SoldOut),
    ] as [fn() -> Error; 3]
    {
        let (hook, seen) = hook();
        let router = failing(error).on_error(hook);
        assert_eq!(reply(&router, "$default", r#"{"id":1}"#).await, expected);
        let seen = seen.lock().unwrap();
        let (kind, code, status, text) = shown(&seen[0]);
        assert_eq!((kind, code.as_str(), status), (FailureKind::Refused, "conflict", 409));
        assert!(text.ends_with("sold out"), "the original is in the log: {text}");
    }
    assert_eq!(code(&failing(|| ShopError::Warehouse.into())).await, "internal");
    assert_eq!(
        code(&failing(|| Error::client(ErrorCode::FORBIDDEN, "no").with_source(ShopError::SoldOut))).await,
        "forbidden"
    );
}

#[tokio::test]
async fn mapping_of_the_outermost_error_takes_precedence() {
    let router = || {
        failing(|| While(ShopError::SoldOut).into())
            .map_error(|_: &ShopError| Some(Error::client(ErrorCode::NOT_FOUND, "never asked")))
    };
    assert_eq!(code(&router()).await, "conflict");
    let outer = router().map_error(|_: &While<ShopError>| Some(Error::client(ErrorCode::TIMEOUT, "outer")));
    assert_eq!(code(&outer).await, "timeout");
}

#[tokio::test]
async fn client_error_is_kept_only_when_outermost() {
    let client = || Error::client(ErrorCode::CONFLICT, "taken");
    // Boxed, and unboxed by `?`.
    let boxed = failing(move || Error::from(client().into_boxed()));
    assert_eq!(code(&boxed).await, "conflict");
    #[derive(Debug, thiserror::Error)]
    #[error("around it")]
    struct Around(#[source] Box<dyn std::error::Error + Send + Sync>);
    assert_eq!(code(&failing(move || Around(client().into_boxed()).into())).await, "internal");
    let invalid = || lambda_websocket::event::ConnectionId::new("").unwrap_err();
    assert_eq!(code(&failing(move || invalid().into())).await, "invalid_message");
    assert_eq!(code(&failing(move || While::<InvalidId>(invalid()).into())).await, "internal");
}

#[tokio::test]
async fn panicking_mapping_sends_an_internal_error_to_the_client() {
    let router = Router::new()
        .on("$default", |_: Message| std::future::ready(Err::<(), _>(Error::from(ShopError::Warehouse))))
        .map_error(|_: &ShopError| -> Option<Error> { panic!("on purpose") });
    let response = router.handle(crate::fixture::message("$default", r#"{"id":7}"#)).await.unwrap();
    let frame: serde_json::Value = serde_json::from_str(response.text().unwrap()).unwrap();
    assert_eq!((&frame["id"], &frame["error"]["code"]), (&7.into(), &"internal".into()));
}
