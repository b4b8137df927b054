use lambda_websocket::{Message, Router};

async fn say(_message: Message) {}

fn main() {
    let _ = Router::new().on("say", say);
}
