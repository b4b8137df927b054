use lambda_websocket::{Connect, Result, Route, Router};

struct Join;

impl Route for Join {
    const KEY: &'static str = "join";
    type Event = Connect;
    type Reply = ();

    async fn handle(&self, _: Connect) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = Router::new().route(Join);
}
