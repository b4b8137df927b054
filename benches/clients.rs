//! The cost of creating AWS clients at a cold start: separately, or from one configuration.
//!
//! ```sh
//! cargo bench --bench clients --no-default-features --features dynamodb,rate-limit,sdk,tickets
//! ```
//!
//! Creates a transport and three tables. Nothing is sent: each client reads the trusted
//! certificates and sets up TLS. Valgrind's callgrind counts instructions, in a separate process
//! for each row.

#![allow(clippy::unwrap_used, reason = "a bench that panics has failed, which is all it can do")]

use std::env;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use lambda_websocket::authorizer::ticket;
use lambda_websocket::push::{Endpoint, Sdk};
use lambda_websocket::{rate_limit, registry};

const ROWS: [(&str, &str); 4] = [
    ("none", "no client"),
    ("one", "one table"),
    ("each", "a transport and three tables, each by itself"),
    ("shared", "the same, from one configuration"),
];

fn endpoint() -> Endpoint {
    "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/dev".parse().unwrap()
}

async fn set_up(row: &str) {
    match row {
        "one" => drop(black_box(registry::DynamoDb::new("connections").await)),
        "each" => {
            black_box(Sdk::new(&endpoint()).await.unwrap());
            black_box(registry::DynamoDb::new("connections").await);
            black_box(ticket::DynamoDb::new("tickets").await);
            black_box(rate_limit::DynamoDb::new("buckets").await);
        }
        "shared" => {
            let http = aws_smithy_http_client::Builder::new();
            let http = http.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
            let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
            black_box(Sdk::from_config(&config, &endpoint()).unwrap());
            black_box(registry::DynamoDb::from_config("connections", &config));
            black_box(ticket::DynamoDb::from_config("tickets", &config));
            black_box(rate_limit::DynamoDb::from_config("buckets", &config));
        }
        _ => drop(black_box((Credentials::new("id", "secret", None, None, "bench"), Region::new("eu-central-1")))),
    }
}

fn instructions(row: &str) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().ok()?)
        .args(["--row", row])
        .envs([("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stderr).ok()?;
    text.lines().find(|line| line.contains("Collected :"))?.rsplit(' ').next()?.parse().ok()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, row] = arguments.as_slice()
        && flag == "--row"
    {
        let start = Instant::now();
        runtime.block_on(set_up(row));
        println!("{}", start.elapsed().as_micros());
        return;
    }
    println!("{:<46} {:>8} {:>20}", "set up", "µs", "million instructions");
    for (row, title) in ROWS {
        let run = || -> u64 {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--row", row]);
            command.envs([
                ("AWS_REGION", "eu-central-1"),
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
            ]);
            String::from_utf8(command.output().unwrap().stdout).unwrap().trim().parse().unwrap()
        };
        let best = (0..20).map(|_| run()).min().unwrap_or_default();
        let counted =
            instructions(row).map_or_else(|| "not counted".to_owned(), |count| format!("{:.1}", count as f64 / 1e6));
        println!("{title:<46} {best:>8} {counted:>20}");
    }
}
