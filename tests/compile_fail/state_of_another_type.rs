use lambda_websocket::route::State;
use lambda_websocket::{Message, Result, Router};

struct App;
struct Other;

async fn say(_message: Message, _app: State<Other>) -> Result<()> {
    Ok(())
}

fn main() {
    let _ = Router::with_state(App).on("say", say);
}
