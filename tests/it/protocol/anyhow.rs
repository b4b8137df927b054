//! Errors inside `anyhow::Error`.

use anyhow::Context as _;
use lambda_websocket::event::ConnectionId;
use lambda_websocket::route::{Error, ErrorCode};
use lambda_websocket::{Message, Router};

use super::errors::{ShopError, mapped};
use super::reply;

#[tokio::test]
async fn anyhow_error_is_mapped_by_its_inner_type() {
    type Case = (fn() -> anyhow::Error, &'static str);
    let cases: [Case; 5] = [
        (|| ShopError::SoldOut.into(), "conflict"),
        (|| Err::<(), _>(ShopError::SoldOut).context("while buying").unwrap_err(), "conflict"),
        (|| anyhow::Error::from(ShopError::SoldOut).context("one").context("two"), "conflict"),
        (|| ConnectionId::new("").unwrap_err().into(), "invalid_message"),
        (|| anyhow::Error::from_boxed(Error::client(ErrorCode::FORBIDDEN, "no").into_boxed()), "forbidden"),
    ];
    for (error, code) in cases {
        let router = Router::new()
            .on("$default", move |_: Message| async move {
                Err(error())?;
                Ok(())
            })
            .map_error(mapped);
        assert_eq!(reply(&router, "$default", r#"{"id":1}"#).await["error"]["code"], code, "{:?}", error());
    }
    assert_eq!(Error::from(anyhow::anyhow!("a text").context("outer")).chain().to_string(), "outer: a text");
}
