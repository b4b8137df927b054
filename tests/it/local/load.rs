//! Clients that send too much, and clients that read slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lambda_websocket::local::{Function, FunctionError, Gateway};
use lambda_websocket::{Json, Message, Router};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lim_7_flood_runs_bounded_concurrent_invocations() {
    const CLIENTS: usize = 50;
    const MESSAGES: usize = 200;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (Arc::clone(&running), Arc::clone(&most));
    let slow = Function::new(move |_, _| {
        let (running, most) = (Arc::clone(&count), Arc::clone(&peak));
        async move {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, FunctionError>(br#"{"statusCode":200}"#.to_vec())
        }
    });
    let echo = Router::new().on("echo", |_: Message| async { Ok(Json("hello")) });
    let gateway = Gateway::builder("dev")
        .function(["slow"], slow.with_concurrency(100))
        .router(echo)
        .route_response("echo")
        .start()
        .await
        .unwrap();
    let mut other = gateway.connect("").await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(gateway.connect("").await.unwrap());
    }
    let floods: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                for _ in 0..MESSAGES {
                    client.send_json(&json!({"action": "slow"})).await.unwrap();
                }
                client
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        other.send_json(&json!({"action": "echo"})).await.unwrap();
        assert_eq!(other.next_json().await.unwrap(), "hello");
        longest = longest.max(start.elapsed());
    }
    for flood in floods {
        flood.await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 100, "never more than allowed");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    let start = Instant::now();
    while running.load(Ordering::SeqCst) > 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn flooding_client_does_not_starve_others() {
    const MESSAGES: usize = 200;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let handled = Arc::clone(&order);
    let router = Router::new().on("say", move |event: Message| {
        let handled = Arc::clone(&handled);
        async move {
            handled.lock().unwrap().push(event.connection_id().clone());
            Ok(())
        }
    });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    let mut flooder = gateway.connect("").await.unwrap();
    let flooding = gateway.connections().remove(0);
    let mut other = gateway.connect("").await.unwrap();
    for _ in 0..MESSAGES {
        flooder.send_json(&json!({"action": "say"})).await.unwrap();
    }
    for _ in 0..5 {
        other.send_json(&json!({"action": "say"})).await.unwrap();
    }
    let start = Instant::now();
    while order.lock().unwrap().len() < MESSAGES + 5 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let position = order.lock().unwrap().iter().rposition(|id| *id != flooding).unwrap();
    assert!(position < 50, "the other's last message was number {position}");
}

#[tokio::test]
async fn mgt_7_slow_reader_receives_every_acknowledged_push() {
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let (mut socket, _) =
        tokio_tungstenite::client_async_with_config(gateway.url(), stream, Some(config)).await.unwrap();
    let id = gateway.connections().remove(0);
    let pusher = gateway.pusher().without_retries();
    let mut sent = 0;
    let payload = "x".repeat(100_000);
    while pusher.send_text(&id, payload.as_str()).await.is_ok() {
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert!((40..400).contains(&sent), "{sent} of 100 KB: the buffer is bounded by its bytes");
    // The gateway detects the end before the client has read everything; the client still gets all frames and the close frame.
    let raw = socket.get_mut();
    let mut received = 0;
    let mut buffer = vec![0; 64 * 1024];
    gateway.pusher().close(&id).await.unwrap();
    loop {
        match raw.read(&mut buffer).await.unwrap() {
            0 => break,
            count => received += count,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        if received >= sent * payload.len() + sent * 10 {
            break;
        }
    }
    assert!(received >= sent * payload.len(), "{received} of {}", sent * payload.len());
}

#[tokio::test]
async fn pooled_connections_are_reused_in_a_burst_and_closed_afterwards() {
    use futures_util::future::join_all;
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

    const CALLERS: usize = 160;
    let gateway = Gateway::builder("dev").start().await.unwrap();
    let mut client = gateway.connect("").await.unwrap();
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        callers.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    for _ in 0..2 {
        for caller in &mut callers {
            let request = b"GET /dev/@connections/AAAAAAAAAAAAAAA= HTTP/1.1\r\nHost: localhost\r\n\r\n";
            caller.write_all(request).await.unwrap();
            let mut response = vec![0; 4096];
            let length = caller.read(&mut response).await.unwrap();
            let response = String::from_utf8_lossy(&response[..length]).into_owned();
            assert!(response.starts_with("HTTP/1.1 410 "), "{response}");
            assert!(!response.contains("connection: close"), "{response}");
        }
    }
    let closed = callers.iter_mut().map(async |caller| {
        let read = timeout(Duration::from_secs(5), caller.read(&mut [0])).await;
        usize::from(matches!(read, Ok(Ok(0))))
    });
    let closed: usize = join_all(closed).await.into_iter().sum();
    assert!((CALLERS - 16..CALLERS).contains(&closed), "{closed} of {CALLERS} were closed within 5 seconds");
    // A WebSocket connection does not count.
    client.send_text("hello").await.unwrap();
    assert!(client.next_text().await.unwrap().contains("Forbidden"));
}

#[tokio::test]
async fn burst_of_connections_is_accepted_without_delay() {
    use std::net::TcpStream;

    let builder = Gateway::builder("dev").bind("127.0.0.1:0").unwrap();
    let url = builder.endpoint().unwrap();
    let address = url.as_str().trim_start_matches("http://").split('/').next().unwrap().parse().unwrap();
    // Nothing accepts yet: connections beyond the backlog are dropped, and retried a second later.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
    let waiting: Vec<_> = (0..600).map(connect).collect();
    let gateway = builder.start().await.unwrap();
    gateway.connect("").await.unwrap();
    drop(waiting);
}

#[tokio::test]
async fn connections_without_a_request_stay_open() {
    use futures_util::future::join_all;
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

    let gateway = Gateway::builder("dev").start().await.unwrap();
    let mut callers = Vec::new();
    for _ in 0..40 {
        callers.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    // Longer than an idle connection stays open that has served its requests.
    let read = callers.iter_mut().map(async |caller| timeout(Duration::from_secs(5), caller.read(&mut [0])).await);
    assert!(join_all(read).await.iter().all(Result::is_err), "a connection was closed");
    for mut caller in callers {
        caller.write_all(b"GET /dev HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut response = [0; 64];
        let length = caller.read(&mut response).await.unwrap();
        assert!(response[..length].starts_with(b"HTTP/1.1 426 "));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn dropped_gateways_leak_nothing() {
    // In a separate process, since other tests open sockets, too.
    if std::env::var_os("IS_CHILD").is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "local::load::dropped_gateways_leak_nothing", "--nocapture"])
            .env("IS_CHILD", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let memory = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let once = async || {
            let builder = Gateway::builder("dev");
            let pusher = builder.pusher();
            let router = Router::new().on("echo", move |event: Message| {
                let pusher = pusher.clone();
                async move { Ok(pusher.send_text(event.connection_id(), "hello").await?) }
            });
            let gateway = builder.router(router).start().await.unwrap();
            let mut client = gateway.connect("").await.unwrap();
            client.send_json(&json!({"action": "echo"})).await.unwrap();
            assert_eq!(client.next_text().await.unwrap(), "hello");
            drop(gateway);
        };
        for _ in 0..200 {
            once().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = (descriptors(), memory());
        for _ in 0..1000 {
            once().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = (descriptors(), memory());
        println!("descriptors and KB before {before:?}, after {after:?}");
        assert!(after.0 <= before.0 + 5, "descriptors: {before:?} {after:?}");
        assert!(after.1 <= before.1 + 4096, "KB: {before:?} {after:?}");
        let metrics = tokio::runtime::Handle::current().metrics();
        assert!(metrics.num_alive_tasks() < 5, "{} tasks", metrics.num_alive_tasks());
    });
}
