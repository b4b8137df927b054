//! Compressed client messages. Invalid deflate data closes the connection; valid data round-trips however it is fragmented.
#![no_main]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use lambda_websocket::local::Gateway;
use lambda_websocket::{Message, Response, Router};
use libfuzzer_sys::fuzz_target;

static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    // A panic in a task of the gateway is also a finding.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::abort();
    }));
    let (ready, address) = sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let router = Router::new().on("$default", |event: Message| async move {
                Ok(Response::ok().body(event.body.to_text().into_owned()))
            });
            let gateway = Gateway::builder("dev").router(router).route_response("$default").start().await.expect("it starts");
            let _ = ready.send(gateway.address());
            std::future::pending::<()>().await;
        });
    });
    address.recv().expect("it has started")
});

const HANDSHAKE: &[u8] = b"GET /dev HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

/// Builds a client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()).expect("frames here are short") {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Returns the inflated payload of a server's frame; `None` when the connection has ended or is being closed.
fn read(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).ok()?;
    let length = match head[1] {
        126 => {
            let mut long = [0; 2];
            socket.read_exact(&mut long).ok()?;
            usize::from(u16::from_be_bytes(long))
        }
        127 => {
            let mut long = [0; 8];
            socket.read_exact(&mut long).ok()?;
            usize::try_from(u64::from_be_bytes(long)).expect("a length")
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).ok()?;
    if head[0] & 0x0f == 8 {
        return None;
    }
    if head[0] & 0x40 != 0 {
        payload.extend([0x00, 0x00, 0xff, 0xff]);
        let mut inflated = Vec::with_capacity(256 * 1024);
        Decompress::new(false).decompress_vec(&payload, &mut inflated, FlushDecompress::Sync).expect("deflate");
        return Some(inflated);
    }
    Some(payload)
}

fuzz_target!(|input: (bool, &str, &[u8], [u8; 4])| {
    let (is_valid, text, bytes, cuts) = input;
    let payload = if is_valid {
        let mut deflated = Vec::with_capacity(text.len() + 1024);
        Compress::new(Compression::fast(), false)
            .compress_vec(text.as_bytes(), &mut deflated, FlushCompress::Sync)
            .expect("there is room");
        deflated.truncate(deflated.len() - 4);
        deflated
    } else {
        bytes.to_vec()
    };
    if payload.len() > 16_000 || text.len() > 30_000 {
        return;
    }
    let mut socket = TcpStream::connect(*ADDRESS).expect("the gateway listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket.write_all(HANDSHAKE).expect("the handshake leaves");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an answer to the handshake");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let mut frames = Vec::new();
    let mut rest = &payload[..];
    for (number, cut) in cuts.into_iter().enumerate() {
        let (part, after) = rest.split_at(usize::from(cut).min(rest.len()));
        frames.extend(frame(if number == 0 { 0x41 } else { 0x00 }, part));
        rest = after;
    }
    frames.extend(frame(0x80, rest));
    let _ = socket.write_all(&frames);
    // Must get a reply, whatever the first message did, unless that has ended the connection.
    let _ = socket.write_all(&frame(0x81, b"last"));
    let mut answers = Vec::new();
    while let Some(answer) = read(&mut socket) {
        let is_last = answer == b"last";
        answers.push(answer);
        if is_last && (!is_valid || answers.len() == 2 || text != "last") {
            break;
        }
    }
    if is_valid {
        assert_eq!(answers, [text.as_bytes(), b"last"], "what was deflated comes back");
    } else if let Some(last) = answers.last() {
        assert_eq!(last, b"last", "a connection that goes on answers");
    }
});
