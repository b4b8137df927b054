use lambda_websocket::Router;

struct NotARoute;

fn main() {
    let _ = Router::new().route(NotARoute);
}
