use lambda_websocket::{Message, Result, Route, Router};

struct OnConnect;

impl Route for OnConnect {
    const KEY: &'static str = "$connect";
    type Event = Message;
    type Reply = ();

    async fn handle(&self, _: Message) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = Router::new().route(OnConnect);
}
