use lambda_websocket::{Message, Result, Route, Router};

struct Join;

impl Route for Join {
    const KEY: &'static str = "$join";
    type Event = Message;
    type Reply = ();

    async fn handle(&self, _: Message) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = Router::new().route(Join);
}
