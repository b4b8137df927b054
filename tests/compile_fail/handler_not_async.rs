use lambda_websocket::{Message, Result, Router};

fn say(_message: Message) -> Result<()> {
    Ok(())
}

fn main() {
    let _ = Router::new().on("say", say);
}
