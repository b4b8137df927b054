use lambda_websocket::Router;

fn main() {
    let _ = Router::new().on("join", |_: String| async { Ok(()) });
}
