use std::rc::Rc;

use lambda_websocket::{Message, Result, Route};

struct Join;

impl Route for Join {
    const KEY: &'static str = "join";
    type Event = Message;
    type Reply = ();

    async fn handle(&self, _: Message) -> Result<()> {
        let counter = Rc::new(1);
        std::future::ready(()).await;
        drop(counter);
        Ok(())
    }
}

fn main() {}
