//! Bytes from a client: a request, or frames after the handshake. The gateway must not panic and must detect the end.
#![no_main]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::Mutex;
use std::time::Duration;

use lambda_websocket::local::Gateway;
use lambda_websocket::{Disconnect, Message, Response, Router};
use libfuzzer_sys::fuzz_target;

struct Served {
    address: SocketAddr,
    disconnects: Mutex<Receiver<()>>,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    // A panic in a task of the gateway is also a finding.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let (told, disconnects): (SyncSender<()>, _) = sync_channel(1024);
    let (ready, address) = sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let router = Router::new()
                .on("$default", |event: Message| async move { Ok(Response::ok().body(event.body.to_text().into_owned())) })
                .on("$disconnect", move |_: Disconnect| {
                    let _ = told.try_send(());
                    async { Ok(()) }
                });
            let gateway = Gateway::builder("dev").router(router).route_response("$default").start().await.expect("it starts");
            let _ = ready.send(gateway.address());
            std::future::pending::<()>().await;
        });
    });
    Served { address: address.recv().expect("it has started"), disconnects: Mutex::new(disconnects) }
});

const HANDSHAKE: &[u8] = b"GET /dev HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fuzz_target!(|input: (bool, &[u8])| {
    let (upgraded, bytes) = input;
    let mut socket = TcpStream::connect(SERVED.address).expect("the gateway listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    if upgraded {
        socket.write_all(HANDSHAKE).expect("the handshake leaves");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("an answer to the handshake");
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
    }
    // The gateway may have closed the connection already.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the gateway does not let go");
    }
    if upgraded {
        let disconnects = SERVED.disconnects.lock().expect("nobody panicked");
        disconnects.recv_timeout(Duration::from_secs(20)).expect("$disconnect is called");
    }
});
