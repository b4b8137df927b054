//! Compiles, so that the other cases fail for their own reasons only.
use lambda_websocket::{Connect, Message, Result, Route, Router};

struct OnConnect;

impl Route for OnConnect {
    const KEY: &'static str = "$connect";
    type Event = Connect;
    type Reply = ();

    async fn handle(&self, _: Connect) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = Router::new().route(OnConnect).on("join", |_: Message<u8>| async { Ok(()) });
}
