//! Connections that stop responding, and those that are closed while a function is frozen.

use std::time::Instant;

use lambda_websocket::push::Sdk;

use super::*;
use crate::line::Line;

const ATTEMPT: Duration = Duration::from_secs(1);

/// Returns both transports to a server with these protocols, each over its own proxy line.
async fn transports(protocols: &[&str]) -> Vec<(&'static str, Stub, Line, Pusher)> {
    let mut all = Vec::new();
    for name in ["direct", "sdk"] {
        let (root, config) = authority("localhost", protocols);
        let stub = Stub::start(Behavior::default(), Some(Arc::new(config).into())).await;
        let line = Line::start(stub.address).await;
        let pusher = pusher(name, line.address.port(), root);
        all.push((name, stub, line, pusher.with_attempt_timeout(ATTEMPT)));
    }
    all
}

fn pusher(name: &str, port: u16, root: Vec<u8>) -> Pusher {
    let endpoint: Endpoint = format!("https://localhost:{port}/dev").parse().unwrap();
    let region = Region::new("eu-central-1").unwrap();
    match name {
        "direct" => {
            let credentials = Credentials::new("id", "secret", None, None, "test");
            let direct = Direct::new(&endpoint.with_region(region), credentials).unwrap();
            Pusher::new(direct.with_root_certificate(root).unwrap())
        }
        _ => {
            let sdk = Sdk::with_static_credentials(&endpoint, &region, "id", "secret");
            Pusher::new(sdk.with_root_certificate(root).unwrap())
        }
    }
}

const PROTOCOLS: [&[&str]; 2] = [&["h2", "http/1.1"], &["http/1.1"]];

#[tokio::test]
async fn dead_connection_is_dropped_within_one_attempt() {
    for protocols in PROTOCOLS {
        for (name, _stub, line, pusher) in transports(protocols).await {
            pusher.send_text(&connection_id(1), "alive").await.unwrap();
            line.go_dead();
            let start = Instant::now();
            let outcome = pusher.send_text(&connection_id(2), "over a dead connection").await;
            let (took, connections) = (start.elapsed(), line.count());
            println!("{name} {protocols:?}: {outcome:?} after {took:?}, {connections} connections");
            assert!(outcome.is_ok() && took < ATTEMPT * 2, "{name} {protocols:?}: {outcome:?} after {took:?}");
            assert_eq!(connections, 2, "{name} {protocols:?}");
            pusher.send_text(&connection_id(3), "alive again").await.unwrap();
            assert_eq!(line.count(), 2, "{name} {protocols:?}: the new connection is kept");
        }
    }
}

#[tokio::test]
async fn connection_dead_from_the_start_is_dropped_within_one_attempt() {
    for protocols in PROTOCOLS {
        for (name, _stub, line, pusher) in transports(protocols).await {
            line.go_dead_for(1);
            let start = Instant::now();
            let outcome = pusher.send_text(&connection_id(1), "x").await;
            let took = start.elapsed();
            assert!(outcome.is_ok() && took < ATTEMPT * 2, "{name} {protocols:?}: {outcome:?} after {took:?}");
        }
    }
}

#[tokio::test]
async fn broadcast_over_a_dead_connection_reconnects() {
    for (name, _stub, line, pusher) in transports(&["h2"]).await {
        pusher.send_text(&connection_id(1), "alive").await.unwrap();
        line.go_dead();
        let start = Instant::now();
        let report = pusher.broadcast((0..200).map(connection_id), "x").unwrap().await;
        assert_eq!(report.delivered, 200, "{name}: {report}");
        assert!(start.elapsed() < ATTEMPT * 3, "{name}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn push_after_the_peer_has_closed_its_connections_succeeds() {
    for protocols in PROTOCOLS {
        for (name, _stub, line, pusher) in transports(protocols).await {
            let report = pusher.broadcast((0..20).map(connection_id), "x").unwrap().await;
            assert_eq!(report.delivered, 20, "{name}: {report}");
            line.close();
            pusher.send_text(&connection_id(1), "x").await.unwrap();
        }
    }
}

/// The process that the next test stops: it pushes once, and again after each line on standard input.
#[test]
fn stopped_process_child() {
    let Ok(what) = std::env::var("STOPPED_PROCESS") else {
        return; // The next test has not started it.
    };
    let mut what = what.split(' ');
    let (name, port) = (what.next().unwrap(), what.next().unwrap().parse().unwrap());
    let root = std::fs::read(what.next().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pusher = match std::env::var_os("STOPPED_SECONDS") {
        Some(_) => pusher(name, port, root),
        None => pusher(name, port, root).with_attempt_timeout(ATTEMPT),
    };
    for _ in 0..2 {
        let start = Instant::now();
        let outcome = runtime.block_on(pusher.send_text(&connection_id(1), "x"));
        println!("\npushed {outcome:?} {}", start.elapsed().as_millis());
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
}

/// Simulates a frozen execution environment: the process is stopped while its peers close or go silent. With
/// `STOPPED_SECONDS=60` it is stopped for long, with the default attempt timeout.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn first_push_after_a_stopped_process_resumes_succeeds() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};

    let seconds = std::env::var("STOPPED_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    for (protocols, what) in PROTOCOLS.into_iter().flat_map(|protocols| ["close", "dead"].map(|what| (protocols, what)))
    {
        for name in ["direct", "sdk"] {
            let (root, config) = authority("localhost", protocols);
            let stub = Stub::start(Behavior::default(), Some(Arc::new(config).into())).await;
            let line = Line::start(stub.address).await;
            let file = std::env::temp_dir().join(format!("stopped-{}-{}.der", std::process::id(), line.address.port()));
            std::fs::write(&file, root).unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["tls::dead::stopped_process_child", "--exact", "--nocapture"])
                .env("STOPPED_PROCESS", format!("{name} {} {}", line.address.port(), file.display()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let id = child.id().to_string();
            let signal = |name: &str| {
                let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
                assert!(sent.success(), "{name}");
            };
            let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut lines = BufReader::new(output).lines().map(|line| line.unwrap());
            let mut pushed = || lines.find(|line| line.starts_with("pushed")).unwrap();
            let before = tokio::task::block_in_place(&mut pushed);
            assert!(before.starts_with("pushed Ok"), "{before}");
            signal("STOP");
            if what == "close" {
                line.close();
            } else {
                line.go_dead();
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            signal("CONT");
            writeln!(input).unwrap();
            let after = tokio::task::block_in_place(&mut pushed);
            println!("{name} {protocols:?}, {what} for {seconds} s: {after} ms");
            assert!(after.starts_with("pushed Ok"), "{name} {protocols:?} {what}: {after}");
            writeln!(input).unwrap();
            assert!(child.wait().unwrap().success());
            std::fs::remove_file(file).unwrap();
        }
    }
}
