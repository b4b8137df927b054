//! Bytes that no library would send, and the exact responses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_websocket::local::{Function, FunctionError, Gateway};
use lambda_websocket::{Connect, Disconnect, Message, Response, Router};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn connect(gateway: &Gateway) -> Self {
        Self(TcpStream::connect(gateway.address()).await.unwrap())
    }

    /// Opens a socket and completes the handshake.
    async fn upgraded(gateway: &Gateway) -> Self {
        let mut raw = Self::connect(gateway).await;
        let head = raw.request(&format!("GET /dev HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")).await.0;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // The gateway may have closed the connection already.
        let _ = self.0.write_all(bytes).await;
    }

    /// Sends a request, and returns the head and the body of its response.
    pub async fn request(&mut self, request: &str) -> (String, String) {
        self.send(request.as_bytes()).await;
        self.response().await
    }

    async fn response(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().await.expect("a response"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase().replacen("http", "HTTP", 1);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|n| n.parse().unwrap());
        let mut body = vec![0; length.unwrap_or_default()];
        self.0.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn byte(&mut self) -> Option<u8> {
        let byte = tokio::time::timeout(Duration::from_secs(20), self.0.read_u8()).await;
        byte.expect("the gateway says nothing").ok()
    }

    /// Returns the opcode and the payload of the next frame; `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, payload) = self.frame_with_bits().await?;
        Some((first & 0x0f, payload))
    }

    /// Returns the first byte, with the final bit and the reserved bits, and the payload of the next frame.
    pub async fn frame_with_bits(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (self.byte().await?, self.byte().await?);
        let length = match second & 0x7f {
            126 => usize::from(self.0.read_u16().await.ok()?),
            127 => usize::try_from(self.0.read_u64().await.ok()?).unwrap(),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }

    /// Returns the code of the next close frame.
    pub async fn close_code(&mut self) -> Option<u16> {
        match self.frame().await? {
            (8, payload) => payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
            other => panic!("{other:?} instead of a close frame"),
        }
    }
}

/// Builds a client's frame, masked with zeros.
pub fn frame(opcode: u8, payload: &[u8], is_final: bool) -> Vec<u8> {
    let mut frame = vec![opcode | if is_final { 0x80 } else { 0 }];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Starts a gateway that echoes every message, and returns the codes of its disconnects.
async fn echo() -> (Gateway, mpsc::UnboundedReceiver<(u16, String)>) {
    let (told, disconnects) = mpsc::unbounded_channel();
    let router = Router::new()
        .on("$default", |event: Message| async move { Ok(Response::ok().body(event.body.to_text().into_owned())) })
        .on("$disconnect", move |event: Disconnect| {
            let _ = told.send((event.status_code().unwrap_or_default(), event.reason().to_owned()));
            async { Ok(()) }
        });
    (Gateway::builder("dev").router(router).route_response("$default").start().await.unwrap(), disconnects)
}

#[tokio::test]
async fn invalid_frames_close_the_connection_with_a_code() {
    let (gateway, mut disconnects) = echo().await;
    let mut unmasked = frame(1, b"{}", true);
    unmasked.drain(2..6);
    unmasked[1] &= 0x7f;
    for (what, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("a reserved opcode", frame(3, b"", true), 1002),
        ("a continuation of nothing", frame(0, b"x", true), 1002),
        ("a ping in fragments", frame(9, b"", false), 1002),
        ("a reserved bit", vec![0xc1, 0x80, 0, 0, 0, 0], 1002),
        ("not UTF-8", frame(1, b"\xff\xfe", true), 1007),
        ("binary", frame(2, b"x", true), 1003),
    ] {
        let mut raw = Raw::upgraded(&gateway).await;
        raw.send(&bytes).await;
        assert_eq!(raw.close_code().await, Some(code), "{what}");
        assert_eq!(disconnects.recv().await.unwrap().0, code, "{what}");
    }
}

#[tokio::test]
async fn close_for_invalid_frame_reaches_a_writing_client() {
    let (gateway, _) = echo().await;
    let mut raw = Raw::upgraded(&gateway).await;
    raw.send(&frame(3, b"", true)).await;
    assert_eq!(raw.close_code().await, Some(1002));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        raw.0.write_all(&frame(1, b"more", true)).await.expect("the connection is not reset");
    }
}

#[tokio::test]
async fn lim_1_a_message_over_128_kb_closes_the_connection() {
    let (gateway, mut disconnects) = echo().await;
    let piece = [b'x'; 32 * 1024];
    let fragments = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|n| frame(if n == 0 { 1 } else { 0 }, &piece, n + 1 == count)).collect()
    };
    let mut raw = Raw::upgraded(&gateway).await;
    raw.send(&fragments(4)).await;
    let (opcode, text) = raw.frame().await.unwrap();
    assert_eq!((opcode, text.len()), (1, 128 * 1024), "128 KB are taken");
    let mut raw = Raw::upgraded(&gateway).await;
    raw.send(&fragments(5)).await;
    assert_eq!(raw.close_code().await, Some(1009));
    assert_eq!(disconnects.recv().await.unwrap().0, 1009);
}

#[tokio::test]
async fn evt_15_close_without_code_and_lost_socket_are_distinguished() {
    let (gateway, mut disconnects) = echo().await;
    let mut raw = Raw::upgraded(&gateway).await;
    raw.send(&frame(8, b"", true)).await;
    assert_eq!(raw.close_code().await, None, "it is answered in kind");
    assert_eq!(disconnects.recv().await.unwrap(), (1005, "Client-side close frame status not set".to_owned()));
    drop(Raw::upgraded(&gateway).await);
    assert_eq!(disconnects.recv().await.unwrap(), (1006, String::new()));
}

#[tokio::test]
async fn lim_4_ping_between_fragments_gets_pong() {
    let (gateway, _) = echo().await;
    let mut raw = Raw::upgraded(&gateway).await;
    raw.send(&[frame(1, b"he", false), frame(9, b"?", true), frame(0, b"llo", true)].concat()).await;
    assert_eq!(raw.frame().await, Some((10, b"?".to_vec())));
    assert_eq!(raw.frame().await, Some((1, b"hello".to_vec())));
}

#[tokio::test]
async fn con_8_and_9_invalid_handshake_error_names_what_is_missing() {
    let (gateway, _) = echo().await;
    let long = format!("/dev?x={}", "x".repeat(4097 - "/dev?x=".len()));
    let host = "Host: localhost\r\n";
    let with = |change: (&str, &str)| format!("GET /dev HTTP/1.1\r\n{host}{}\r\n", UPGRADE.replace(change.0, change.1));
    for (what, request, status, header) in [
        ("no upgrade", format!("GET /dev HTTP/1.1\r\n{host}\r\n"), 426, "upgrade: websocket"),
        ("no connection", with(("Connection: Upgrade\r\n", "")), 426, "upgrade: websocket"),
        ("a long URL", format!("GET {long} HTTP/1.1\r\n{host}{UPGRADE}\r\n"), 414, ""),
        ("an old version", with(("Version: 13", "Version: 8")), 400, "sec-websocket-version: 13"),
        ("no version", with(("Sec-WebSocket-Version: 13\r\n", "")), 400, "sec-websocket-version: 13"),
        ("no key", with(("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")), 400, ""),
        ("an empty key", with(("dGhlIHNhbXBsZSBub25jZQ==", "")), 400, ""),
        ("a short key", with(("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=")), 400, ""),
        ("another method", with(("Connection", "X-Nothing: 1\r\nConnection")).replacen("GET", "POST", 1), 400, ""),
        ("HTTP/1.0", format!("GET /dev HTTP/1.0\r\n{host}{UPGRADE}\r\n"), 400, ""),
        ("no host", format!("GET /dev HTTP/1.1\r\n{UPGRADE}\r\n"), 400, ""),
        ("two hosts", format!("GET /dev HTTP/1.1\r\n{host}{host}{UPGRADE}\r\n"), 400, ""),
        ("another path", format!("GET /dev/more HTTP/1.1\r\n{host}{UPGRADE}\r\n"), 403, "forbiddenexception"),
        ("another stage", format!("GET /prod HTTP/1.1\r\n{host}{UPGRADE}\r\n"), 403, "forbiddenexception"),
    ] {
        let (head, _) = Raw::connect(&gateway).await.request(&request).await;
        assert_eq!(head.split(' ').nth(1), Some(status.to_string().as_str()), "{what}: {head}");
        assert!(head.contains(header), "{what}: {head}");
    }
    let longest = format!("/dev?x={}", "x".repeat(4096 - "/dev?x=".len()));
    let (head, _) =
        Raw::connect(&gateway).await.request(&format!("GET {longest} HTTP/1.1\r\n{host}{UPGRADE}\r\n")).await;
    assert!(head.contains(" 101 "), "{head}");
}

#[tokio::test]
async fn mgt_5_foreign_host_and_cross_site_origin_are_forbidden() {
    let (gateway, _) = echo().await;
    let unknown = "/dev/@connections/AAAAAAAAAAAAAAA=";
    let host = "Host: localhost\r\n";
    let post = |headers: &str| format!("POST {unknown} HTTP/1.1\r\n{headers}Content-Length: 1\r\n\r\nx");
    for (what, request, status) in [
        ("handshake of another host", format!("GET /dev HTTP/1.1\r\nHost: evil.example\r\n{UPGRADE}\r\n"), 403),
        ("push of another host", post("Host: evil.example:3001\r\n"), 403),
        ("push from a foreign page", post(&format!("{host}Origin: https://evil.example\r\n")), 403),
        ("push from a page without an origin", post(&format!("{host}Origin: null\r\n")), 403),
        ("push across sites", post(&format!("{host}Sec-Fetch-Site: cross-site\r\n")), 403),
        ("push from a local page", post(&format!("{host}Origin: http://localhost:5173\r\n")), 410),
        ("push", post(host), 410),
        ("another method", format!("PUT {unknown} HTTP/1.1\r\n{host}\r\n"), 403),
        ("another stage", format!("GET /prod/@connections/AAAAAAAAAAAAAAA= HTTP/1.1\r\n{host}\r\n"), 403),
    ] {
        let (head, body) = Raw::connect(&gateway).await.request(&request).await;
        assert_eq!(head.split(' ').nth(1), Some(status.to_string().as_str()), "{what}: {head}");
        if status == 403 {
            assert_eq!(body, r#"{"message":"Forbidden"}"#, "{what}");
        }
    }
    let gateway = Gateway::builder("dev").allow_host("gateway.test").start().await.unwrap();
    let request = format!("GET /dev HTTP/1.1\r\nHost: Gateway.Test:80\r\n{UPGRADE}\r\n");
    assert!(Raw::connect(&gateway).await.request(&request).await.0.contains(" 101 "));
}

#[tokio::test]
async fn mgt_1_and_6_management_api_works_over_plain_http() {
    let (gateway, _) = echo().await;
    let mut client = Raw::upgraded(&gateway).await;
    let id = gateway.connections()[0].to_string();
    let encoded = id.replace('=', "%3D");
    let mut caller = Raw::connect(&gateway).await;
    for (at, id) in [("@", &id), ("%40", &encoded)] {
        let path = format!("/dev/{at}connections/{id}");
        let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
        assert!(caller.request(&request).await.0.starts_with("HTTP/1.1 200 "));
        assert_eq!(client.frame().await, Some((1, b"hi".to_vec())));
        let (head, body) = caller.request(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("connectedAt"), "{head}{body}");
    }
    for size in [131_073, 1_000_000, 10_000_000] {
        let head = format!("POST /dev/@connections/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n");
        let mut caller = Raw::connect(&gateway).await;
        caller.0.write_all(&[head.into_bytes(), vec![b'x'; size]].concat()).await.expect("the body is read to its end");
        let (head, _) = caller.response().await;
        assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("payloadtoolargeexception"), "{size}: {head}");
    }
    let (head, _) = caller.request(&format!("DELETE /dev/@connections/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert_eq!(client.close_code().await, Some(1000));
}

#[tokio::test]
async fn evt_11_header_names_keep_their_case_on_reused_connection() {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let record = Arc::clone(&seen);
    let refuse = Function::new(move |_, event| {
        record.lock().unwrap().push(serde_json::from_slice(&event).unwrap());
        async { Ok::<_, FunctionError>(br#"{"statusCode":403}"#.to_vec()) }
    });
    let gateway = Gateway::builder("dev").function(["$connect"], refuse).start().await.unwrap();
    let mut raw = Raw::connect(&gateway).await;
    for (target, name, value) in
        [("/dev", "X-ToKen", "bad"), ("/dev", "x-tOKEN", "good"), ("http://localhost/dev?a=b", "X-TOKEN", "absolute")]
    {
        let request = format!("GET {target} HTTP/1.1\r\nHOST: localhost\r\n{name}: {value}\r\n{UPGRADE}\r\n");
        assert!(raw.request(&request).await.0.starts_with("HTTP/1.1 403 "));
        let event = seen.lock().unwrap().pop().unwrap();
        assert_eq!(event["headers"][name], value, "{event}");
        assert_eq!(event["headers"]["HOST"], "localhost", "{event}");
    }
}

#[tokio::test]
async fn evt_11_header_names_keep_their_case_when_pipelined() {
    let (told, mut events) = mpsc::unbounded_channel();
    let refuse = Function::new(move |_, event| {
        let _ = told.send(serde_json::from_slice::<Value>(&event).unwrap());
        async { Ok::<_, FunctionError>(br#"{"statusCode":403}"#.to_vec()) }
    });
    let gateway = Gateway::builder("dev").function(["$connect"], refuse).start().await.unwrap();
    let mut raw = Raw::connect(&gateway).await;
    // The response to the first request is sent in the middle of the second one's head, whose rest looks like a request.
    let first = "GET /dev/@connections/AAAAAAAAAAAAAAA= HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (head, _) = raw.request(&format!("{first}GET /dev HTTP/1.1\r\nHost: localhost\r\nX-Like: ")).await;
    assert!(head.starts_with("HTTP/1.1 410 "), "{head}");
    let (head, _) = raw.request(&format!("GET /dev HTTP/1.1\r\n{UPGRADE}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let event = events.recv().await.unwrap();
    assert_eq!(event["headers"]["host"], "localhost", "{event}");
    assert_eq!(event["headers"]["x-like"], "GET /dev HTTP/1.1", "{event}");
}

#[tokio::test]
async fn evt_15_client_lost_silently_during_the_handshake_is_disconnected() {
    let (asked, mut waiting) = mpsc::unbounded_channel();
    let (told, mut disconnects) = mpsc::unbounded_channel();
    let (go, gate) = tokio::sync::watch::channel(false);
    let router = Router::new()
        .on("$connect", move |_: Connect| {
            let (asked, mut gate) = (asked.clone(), gate.clone());
            async move {
                asked.send(())?;
                gate.wait_for(|open| *open).await?;
                Ok(())
            }
        })
        .on("$disconnect", move |event: Disconnect| {
            let _ = told.send(event.status_code());
            async { Ok(()) }
        });
    let gateway = Gateway::builder("dev").router(router).start().await.unwrap();
    let mut raw = Raw::connect(&gateway).await;
    // With an extra byte in its buffer, hyper does not check whether the client is still connected.
    raw.send(format!("GET /dev HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n\u{1}").as_bytes()).await;
    waiting.recv().await.unwrap();
    raw.0.set_zero_linger().unwrap();
    drop(raw);
    go.send(true).unwrap();
    let disconnect = tokio::time::timeout(Duration::from_secs(20), disconnects.recv()).await;
    assert_eq!(disconnect.expect("its end is noticed"), Some(Some(1006)));
    assert!(gateway.connections().is_empty());
}

#[tokio::test]
async fn client_that_never_reads_does_not_delay_others() {
    let (gateway, _) = echo().await;
    let mut deaf = Raw::upgraded(&gateway).await;
    let message = frame(1, &[b'x'; 30_000], true);
    // Until the gateway stops reading from it, too.
    let flood = async {
        loop {
            deaf.send(&message).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), flood).await;
    let mut other = Raw::upgraded(&gateway).await;
    other.send(&frame(1, b"hello", true)).await;
    assert_eq!(other.frame().await, Some((1, b"hello".to_vec())));
}
