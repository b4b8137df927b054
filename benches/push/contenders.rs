//! The clients to compare.

use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::config::retry::RetryConfig;
use aws_sdk_apigatewaymanagement::config::{BehaviorVersion, Builder, Credentials, Region as SdkRegion};
use aws_sdk_apigatewaymanagement::primitives::Blob;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::tls;
use base64::Engine as _;
use futures_util::StreamExt as _;
use lambda_websocket::event::Region;
use lambda_websocket::push::{Direct, Endpoint, Payload, Sdk};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::server::Server;
use super::stub::connection_id;

/// A payload of 200 bytes.
pub fn payload() -> Payload {
    Payload::new("x".repeat(200)).unwrap()
}

pub fn endpoint(address: &str) -> Endpoint {
    let scheme = if address.starts_with("localhost") { "https" } else { "http" };
    let endpoint: Endpoint = format!("{scheme}://{address}/dev").parse().unwrap();
    endpoint.with_region(Region::new("us-east-1").unwrap())
}

fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret", Some("token".repeat(100)), None, "bench")
}

pub fn direct(server: &Server) -> Direct {
    let direct = Direct::new(&endpoint(&server.address), credentials()).unwrap();
    match &server.root {
        Some(root) => direct.with_root_certificate(root.clone()).unwrap(),
        None => direct,
    }
}

pub fn sdk(server: &Server) -> Sdk {
    let region = Region::new("us-east-1").unwrap();
    Sdk::with_static_credentials(&endpoint(&server.address), &region, "AKIDEXAMPLE", "secret")
}

/// Pushes with the bare SDK client, in a loop with this concurrency.
pub async fn bare_sdk(server: &Server, pushes: usize, concurrency: usize) {
    let trusted = server.root.as_ref().map_or_else(tls::TrustStore::default, |root| {
        let pem = base64::engine::general_purpose::STANDARD.encode(root);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
        tls::TrustStore::empty().with_pem_certificate(pem.into_bytes())
    });
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(tls::TlsContext::builder().with_trust_store(trusted).build().unwrap())
        .build_https();
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(credentials())
        .region(SdkRegion::new("us-east-1"))
        .endpoint_url(endpoint(&server.address).as_str())
        .http_client(http)
        .retry_config(RetryConfig::standard())
        .sleep_impl(TokioSleep::new())
        .build();
    let client = Client::from_conf(config);
    let blob = Blob::new("x".repeat(200));
    futures_util::stream::iter(0..pushes)
        .map(|number| {
            let push = client.post_to_connection().connection_id(connection_id(number).as_str()).data(blob.clone());
            async move { push.send().await.unwrap() }
        })
        .buffer_unordered(concurrency)
        .for_each(|_| async {})
        .await;
}

/// Writes the same bytes to raw sockets, without an HTTP library or a signature.
pub async fn raw_floor(server: &Server, pushes: usize, concurrency: usize) {
    let tasks = (0..concurrency).map(|first| async move {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut answer = [0; 1024];
        for number in (first..pushes).step_by(concurrency) {
            let id = connection_id(number).as_str().replace('=', "%3D");
            let request = format!(
                "POST /dev/@connections/{id} HTTP/1.1\r\nhost: {}\r\ncontent-length: 200\r\n\r\n{}",
                server.address,
                "x".repeat(200)
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut read = 0;
            while !answer[..read].ends_with(b"\r\n\r\n") {
                read += stream.read(&mut answer[read..]).await.unwrap();
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    });
    let tasks: futures_util::stream::FuturesUnordered<_> = tasks.collect();
    tasks.for_each(|()| async {}).await;
}
