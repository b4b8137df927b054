use std::rc::Rc;

use lambda_websocket::{Message, Result, Router};

async fn say(_message: Message) -> Result<()> {
    let counter = Rc::new(1);
    std::future::ready(()).await;
    drop(counter);
    Ok(())
}

fn main() {
    let _ = Router::new().on("say", say);
}
