use lambda_websocket::{Message, Result, Route};

struct Join;

struct Body;

impl Route for Join {
    const KEY: &'static str = "join";
    type Event = Message<Body>;
    type Reply = ();

    async fn handle(&self, _: Message<Body>) -> Result<()> {
        Ok(())
    }
}

fn main() {}
