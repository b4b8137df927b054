use lambda_websocket::{Message, Router};

fn main() {
    let _ = Router::new().on("join", |_: Message| async { Ok(7_u8) });
}
