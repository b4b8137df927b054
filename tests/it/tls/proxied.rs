//! Pushes through an HTTP `CONNECT` proxy.

use std::net::SocketAddr;
use std::sync::Mutex;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use base64::Engine as _;
use lambda_websocket::push::Sdk;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A proxy, and the heads of the requests that it received.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Proxy {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, answer, Arc::clone(&log)));
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<Vec<String>> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(client: TcpStream, answer: &'static str, log: Arc<Mutex<Vec<Vec<String>>>>) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let target = head[0].split(' ').nth(1).unwrap().to_owned();
    log.lock().unwrap().push(head);
    client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await?;
    if answer.starts_with("200") {
        copy_bidirectional(&mut client, &mut TcpStream::connect(target).await?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn direct_tunnels_through_a_proxy_with_credentials() {
    let (stub, root, direct) = server(&["h2", "http/1.1"]).await;
    let proxy = Proxy::start("200 Connection established").await;
    let url = format!("http://me:p%40ss@{}", proxy.address);
    // The order of these calls does not matter.
    let direct = direct.with_proxy(&url).unwrap().with_root_certificate(root).unwrap();
    let pusher = Pusher::new(direct);
    pusher.send_text(&connection_id(1), "hello").await.unwrap();
    pusher.send_text(&connection_id(2), "hello").await.unwrap();
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "one connection for both: {heads:?}");
    assert_eq!(heads[0][0], format!("CONNECT localhost:{} HTTP/1.1", stub.address.port()));
    let credentials = base64::engine::general_purpose::STANDARD.encode("me:p@ss");
    assert!(
        heads[0].iter().any(|line| line.eq_ignore_ascii_case(&format!("proxy-authorization: Basic {credentials}")))
    );
    assert_eq!(stub.over_http_2.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn direct_uses_the_proxy_from_the_environment() {
    if std::env::var_os("IS_CHILD").is_some() {
        let (_stub, root, direct) = server(&[]).await;
        let direct = direct.with_proxy_from_env().with_root_certificate(root).unwrap();
        return Pusher::new(direct).send_text(&connection_id(1), "hello").await.unwrap();
    }
    let proxy = Proxy::start("200 Connection established").await;
    // In a separate process, since all tests share this one's environment variables.
    for (no_proxy, expected) in [("", 1), ("localhost", 1), ("example.com", 2)] {
        let child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::proxied::direct_uses_the_proxy_from_the_environment"])
            .env_remove("https_proxy")
            .env_remove("no_proxy")
            .env("IS_CHILD", "1")
            .env("HTTPS_PROXY", format!("http://{}", proxy.address))
            .env("NO_PROXY", no_proxy)
            .output()
            .await
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
        assert_eq!(proxy.heads().len(), expected, "with NO_PROXY={no_proxy}");
    }
}

#[tokio::test]
async fn refusing_or_missing_proxy_is_unreachable() {
    let (stub, root, direct) = server(&[]).await;
    let refusing = Proxy::start("407 Proxy Authentication Required").await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let direct = direct.with_root_certificate(root).unwrap();
    for (address, expected) in [(refusing.address, "proxy"), (nobody, "refused")] {
        let direct = direct.clone().with_proxy(&format!("http://me:s3cret@{address}")).unwrap();
        let error = Pusher::new(direct).without_retries().send_text(&connection_id(1), "x").await.unwrap_err();
        assert!(matches!(error, PushError::Unreachable { .. }), "{error:?}");
        let text = format!("{error:?}");
        assert!(text.contains(expected) && !text.contains("s3cret"), "{text}");
    }
    assert!(stub.log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn invalid_proxy_url_is_refused_without_quoting_it() {
    let (_stub, _, direct) = server(&[]).await;
    for url in
        ["", "http://", "https://proxy:3128", "socks5://proxy:1080", "ftp://me:s3cret@proxy", "http://me:s3cret@:1"]
    {
        let Err(error) = direct.clone().with_proxy(url) else { panic!("{url} was taken") };
        let error = error.to_string();
        assert!(error.starts_with("the proxy URL is not valid: expected `http://host:port`"), "{url}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn sdk_uses_the_given_http_client_and_replaces_it_after_a_timeout() {
    let (root, config) = authority("localhost", &["h2"]);
    let behavior = Behavior { stalled: 1.0, ..Behavior::default() };
    let stub = Stub::start(behavior, Some(Arc::new(config).into())).await;
    let proxy = Proxy::start("200 OK").await;
    let pem = base64::engine::general_purpose::STANDARD.encode(root);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
    let made = Arc::new(Mutex::new(0));
    let (count, address) = (Arc::clone(&made), proxy.address);
    let make = move || {
        *count.lock().unwrap() += 1;
        let trusted = TrustStore::default().with_pem_certificate(pem.as_bytes());
        let tls = TlsContext::builder().with_trust_store(trusted).build().unwrap();
        Builder::new().build_with_connector_fn(move |settings, _| {
            let proxy = ProxyConfig::all(format!("http://{address}")).unwrap();
            let connector = Connector::builder().proxy_config(proxy);
            let connector = connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls.clone());
            connector.connector_settings(settings.cloned().unwrap_or_default()).build()
        })
    };
    let endpoint: Endpoint = format!("https://localhost:{}/dev", stub.address.port()).parse().unwrap();
    let region = Region::new("eu-central-1").unwrap();
    let sdk = Sdk::with_static_credentials(&endpoint, &region, "id", "secret").with_http_client(make);
    let pusher = Pusher::new(sdk).with_attempt_timeout(Duration::from_millis(500)).without_retries();
    for _ in 0..2 {
        let error = pusher.send_text(&connection_id(1), "hello").await.unwrap_err();
        assert!(matches!(error, PushError::TimedOut { .. }), "{error:?}");
    }
    let heads = proxy.heads();
    assert_eq!(heads[0][0], format!("CONNECT localhost:{} HTTP/1.1", stub.address.port()));
    assert_eq!((heads.len(), *made.lock().unwrap()), (2, 3), "a connection that does not answer is not used again");
}
