//! Compression, byte by byte.

use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use lambda_websocket::local::Gateway;
use lambda_websocket::{Message, Response, Router};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Runtime;

use super::raw::{Raw, UPGRADE, frame};

const RSV1: u8 = 0x40;
const TEXT: u8 = 1;
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Starts a gateway that echoes every message.
async fn echo() -> Gateway {
    let router = Router::new()
        .on("$default", |event: Message| async move { Ok(Response::ok().body(event.body.to_text().into_owned())) });
    Gateway::builder("dev").router(router).route_response("$default").start().await.unwrap()
}

/// Performs the handshake with these offers, and returns the gateway's response to them.
async fn negotiated(gateway: &Gateway, offers: &[&str]) -> (Raw, Option<String>) {
    let mut raw = Raw::connect(gateway).await;
    let offers: String = offers.iter().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).collect();
    let head = raw.request(&format!("GET /dev HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{offers}\r\n")).await.0;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let answer = head.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: ")).map(str::to_owned);
    (raw, answer)
}

async fn compressing(gateway: &Gateway) -> Raw {
    let (raw, answer) = negotiated(gateway, &["permessage-deflate"]).await;
    assert_eq!(answer.as_deref(), Some(ANSWER));
    raw
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(text.len() * 2 + 64);
    Compress::new(Compression::best(), false).compress_vec(text, &mut compressed, FlushCompress::Sync).unwrap();
    assert!(compressed.ends_with(&[0, 0, 0xff, 0xff]));
    compressed.truncate(compressed.len() - 4);
    compressed
}

fn inflate(compressed: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(256 * 1024);
    let whole = [compressed, &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false).decompress_vec(&whole, &mut text, FlushDecompress::Sync).unwrap();
    text
}

/// Returns the next message as text, and whether it was compressed.
async fn message(raw: &mut Raw) -> (String, bool) {
    match raw.frame_with_bits().await {
        Some((0x81, payload)) => (String::from_utf8(payload).unwrap(), false),
        Some((0xc1, payload)) => (String::from_utf8(inflate(&payload)).unwrap(), true),
        other => panic!("{other:?} instead of a message"),
    }
}

#[tokio::test]
async fn con_7_first_supported_offer_is_accepted() {
    let gateway = echo().await;
    let with_bits = |bits| format!("{ANSWER}; server_max_window_bits={bits}");
    for (offers, answer) in [
        (&["permessage-deflate"] as &[&str], Some(ANSWER.to_owned())),
        (&["Permessage-Deflate; client_max_window_bits"], Some(ANSWER.to_owned())),
        (&["permessage-deflate; client_max_window_bits=8; client_no_context_takeover"], Some(ANSWER.to_owned())),
        (&["permessage-deflate; server_no_context_takeover; server_max_window_bits=9"], Some(with_bits(9))),
        (&["permessage-deflate; server_max_window_bits=\"15\""], Some(with_bits(15))),
        (&["permessage-deflate; server_max_window_bits=8"], None),
        (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], Some(ANSWER.to_owned())),
        (&["permessage-deflate; server_max_window_bits=16", "permessage-deflate"], Some(ANSWER.to_owned())),
        (&["other; a=\"permessage-deflate, permessage-deflate\""], None),
        (&["permessage-deflate; server_max_window_bits"], None),
        (&["permessage-deflate; server_max_window_bits=09"], None),
        (&["permessage-deflate; server_max_window_bits=+9"], None),
        (&["permessage-deflate; client_max_window_bits=7"], None),
        (&["permessage-deflate; client_no_context_takeover=1"], None),
        (&["permessage-deflate; client_no_context_takeover; client_no_context_takeover"], None),
        (&["permessage-deflate; unknown"], None),
        (&["permessage-deflate;"], None),
        (&["x-webkit-deflate-frame"], None),
        (&[], None),
    ] {
        assert_eq!(negotiated(&gateway, offers).await.1, answer, "{offers:?}");
    }
    let gateway = Gateway::builder("dev").router(Router::new()).without_compression().start().await.unwrap();
    assert_eq!(negotiated(&gateway, &["permessage-deflate"]).await.1, None);
}

#[tokio::test]
async fn con_7_messages_are_compressed_in_both_directions() {
    let gateway = echo().await;
    let (mut raw, _) = negotiated(&gateway, &["permessage-deflate; server_max_window_bits=9"]).await;
    let long = "so long and thanks ".repeat(1000);
    // The client may use a window of 15 bits: only the server's window is limited.
    raw.send(&frame(TEXT | RSV1, &deflate(long.as_bytes()), true)).await;
    assert_eq!(message(&mut raw).await, (long.clone(), true));
    // The gateway does not compress short messages, and a client need not compress, either.
    raw.send(&frame(TEXT | RSV1, &deflate(b"short"), true)).await;
    assert_eq!(message(&mut raw).await, ("short".to_owned(), false));
    raw.send(&frame(TEXT, long.as_bytes(), true)).await;
    assert_eq!(message(&mut raw).await, (long, true));
    // The examples of RFC 7692, 7.2.3: a stored block, a final block, and two blocks.
    for bytes in [
        &[0xf2_u8, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        raw.send(&frame(TEXT | RSV1, bytes, true)).await;
        assert_eq!(message(&mut raw).await.0, "Hello", "{bytes:x?}");
    }
}

#[tokio::test]
async fn con_7_control_frames_may_interleave_compressed_fragments() {
    let gateway = echo().await;
    let mut raw = compressing(&gateway).await;
    let text = "fragments ".repeat(10);
    let compressed = deflate(text.as_bytes());
    let (first, second) = compressed.split_at(5);
    raw.send(&frame(TEXT | RSV1, first, false)).await;
    raw.send(&frame(9, b"between", true)).await;
    assert_eq!(raw.frame().await, Some((10, b"between".to_vec())));
    raw.send(&frame(0, b"", false)).await;
    raw.send(&frame(0, second, true)).await;
    assert_eq!(message(&mut raw).await.0, text);
}

#[tokio::test]
async fn con_7_and_lim_1_protocol_violation_closes_with_its_code() {
    let gateway = echo().await;
    let bomb = deflate(&vec![b'x'; 64 * 1024 * 1024][..]);
    let bomb = &bomb[..32 * 1024];
    let most = deflate(&vec![b'x'; 128 * 1024 + 1]);
    let utf8 = deflate(b"\xff\xfe");
    let some = deflate(b"some text");
    for (frames, code, what) in [
        (vec![frame(TEXT | RSV1, bomb, true)], 1009, "a bomb"),
        (vec![frame(TEXT | RSV1, &most, true)], 1009, "one byte too many"),
        (vec![frame(TEXT | RSV1, &[0; 32 * 1024 + 1], true)], 1009, "a frame that is too large on the wire"),
        (vec![frame(TEXT | RSV1, &[0xff; 20], true)], 1007, "a corrupt stream"),
        (vec![frame(TEXT | RSV1, &some[..4], true)], 1007, "a message that ends within a block"),
        (vec![frame(TEXT | RSV1, b"", true)], 1007, "no block at all"),
        (vec![frame(TEXT | RSV1, &utf8, true)], 1007, "no UTF-8"),
        (vec![frame(2 | RSV1, &some, true)], 1003, "binary"),
        (vec![frame(9 | RSV1, b"", true)], 1002, "a ping"),
        (vec![frame(TEXT | RSV1, &some, false), frame(RSV1, &some, true)], 1002, "a continuation"),
        (vec![frame(TEXT | RSV1, &some, false), frame(TEXT | RSV1, &some, true)], 1002, "two beginnings"),
        (vec![frame(TEXT, b"x", false), frame(TEXT | RSV1, &some, true)], 1002, "a beginning within a plain message"),
        (vec![frame(TEXT | RSV1 | 0x20, &some, true)], 1002, "another reserved bit"),
        (vec![vec![0xc1, 0x01, 0x00]], 1002, "no mask"),
        (vec![frame(3 | RSV1, &some, true)], 1002, "an unknown opcode"),
    ] {
        let mut raw = compressing(&gateway).await;
        for frame in frames {
            raw.send(&frame).await;
        }
        assert_eq!(raw.close_code().await, Some(code), "{what}");
    }
    let (mut raw, _) = negotiated(&gateway, &[]).await;
    raw.send(&frame(TEXT | RSV1, &some, true)).await;
    assert_eq!(raw.close_code().await, Some(1002), "it was not negotiated");
}

#[tokio::test]
async fn con_7_empty_and_maximum_size_messages_inflate() {
    let gateway = echo().await;
    let mut raw = compressing(&gateway).await;
    let largest = "x".repeat(128 * 1024);
    raw.send(&frame(TEXT | RSV1, &deflate(largest.as_bytes()), true)).await;
    let (text, is_compressed) = message(&mut raw).await;
    assert!(is_compressed && text == largest);
    raw.send(&frame(TEXT | RSV1, &[0x00], true)).await;
    assert_eq!(message(&mut raw).await.0, "");
    raw.send(&frame(TEXT, b"after", true)).await;
    assert_eq!(message(&mut raw).await.0, "after");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn con_7_any_message_in_any_fragments_round_trips(
        text in "[a-c é€]{1,3000}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        pieces in 1..2000_usize,
    ) {
        Runtime::new().unwrap().block_on(async {
            let gateway = echo().await;
            let mut raw = compressing(&gateway).await;
            let compressed = deflate(text.as_bytes());
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(compressed.len() + 1)).collect();
            cuts.extend([0, compressed.len()]);
            cuts.sort_unstable();
            let last = cuts.len() - 2;
            let fragments = cuts.windows(2).enumerate().map(|(at, ends)| {
                frame(if at == 0 { TEXT | RSV1 } else { 0 }, &compressed[ends[0]..ends[1]], at == last)
            });
            // TCP may split the stream anywhere.
            for piece in fragments.collect::<Vec<_>>().concat().chunks(pieces) {
                raw.send(piece).await;
            }
            assert_eq!(message(&mut raw).await.0, text);
        });
    }
}

#[tokio::test]
async fn con_7_close_for_corrupt_stream_reaches_a_writing_client() {
    let gateway = echo().await;
    let mut raw = compressing(&gateway).await;
    // More data than the gateway reads at once is in flight when it closes the connection.
    let mut frames = frame(TEXT | RSV1, &[0xff; 20], true);
    frames.extend(frame(TEXT, &[b'x'; 30 * 1024], true));
    raw.send(&frames).await;
    assert_eq!(raw.close_code().await, Some(1007));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        raw.0.write_all(&frame(TEXT | RSV1, &[0xff; 20], true)).await.expect("the connection is not reset");
    }
}
