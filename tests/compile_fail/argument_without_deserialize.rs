use lambda_websocket::{Json, Result, Router};

struct Words {
    _text: String,
}

async fn say(_words: Json<Words>) -> Result<()> {
    Ok(())
}

fn main() {
    let _ = Router::new().on("say", say);
}
