//! CON-7: permessage-deflate, RFC 7692.
//!
//! tungstenite writes frames with reserved bits, but does not read them. The client's data is
//! therefore inflated before tungstenite reads it: frames of compressed messages become plain
//! frames, to which tungstenite applies its own rules and limits. Everything else passes unchanged,
//! including a misplaced reserved bit. No compression window outlives a message, in either
//! direction.

use std::io::{Cursor, ErrorKind};

use bytes::{Buf as _, BufMut as _, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::header::SEC_WEBSOCKET_EXTENSIONS;
use http::{HeaderMap, HeaderValue};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::quotas::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES};

/// The minimum length of a compressed message.
///
/// Shorter messages would hardly shrink, and the compressor takes memory.
const WORTH_IT: usize = 1024;
/// The end of each compressed message, which is omitted on the wire.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// The tail and a final empty block.
///
/// The stream ends with it only if the message has ended between two blocks.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];
/// The number of bytes inflated at a time.
const CHUNK: usize = 8 * 1024;

/// The negotiated parameters of the extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deflate {
    /// The window size that the client requested.
    server_max_window_bits: Option<u8>,
}

impl Deflate {
    /// Returns the first offer that the gateway supports.
    pub(super) fn negotiate(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| split(value, ',')).find_map(Self::accept)
    }

    fn accept(offer: &str) -> Option<Self> {
        let mut parts = split(offer, ';');
        if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
            return None;
        }
        let (mut seen, mut server_max_window_bits) = (Vec::new(), None);
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
                None => (part, None),
            };
            let name = name.to_ascii_lowercase();
            match (name.as_str(), value) {
                ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
                // The response need not mention it: any window can be inflated.
                ("client_max_window_bits", Some(bits)) => drop(window_bits(bits)?),
                // zlib has no window of 8 bits.
                ("server_max_window_bits", Some(bits)) => {
                    server_max_window_bits = Some(window_bits(bits).filter(|bits| *bits > 8)?);
                }
                _ => return None,
            }
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
        }
        Some(Self { server_max_window_bits })
    }

    /// Returns the header that accepts the offer.
    pub(super) fn answer(self) -> HeaderValue {
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let with_bits = |bits| HeaderValue::from_str(&format!("{answer}; server_max_window_bits={bits}")).ok();
        self.server_max_window_bits.and_then(with_bits).unwrap_or(HeaderValue::from_static(answer))
    }

    /// Returns the message to send, compressed if it is worth it.
    pub(super) fn message(self, text: String) -> Message {
        let compressed = (text.len() >= WORTH_IT).then(|| self.compress(text.as_bytes())).flatten();
        match compressed {
            Some(compressed) => {
                let mut frame = Frame::message(compressed, OpCode::Data(Data::Text), true);
                frame.header_mut().rsv1 = true;
                Message::Frame(frame)
            }
            None => Message::text(text),
        }
    }

    /// Compresses a message, or returns `None` if it would not get smaller.
    fn compress(self, text: &[u8]) -> Option<Vec<u8>> {
        let bits = self.server_max_window_bits.unwrap_or(15);
        let mut stream = Compress::new_with_window_bits(Compression::fast(), false, bits);
        let mut compressed = Vec::with_capacity(text.len());
        stream.compress_vec(text, &mut compressed, FlushCompress::Sync).ok()?;
        let is_whole = stream.total_in() == u64::try_from(text.len()).ok()? && compressed.len() < compressed.capacity();
        if !is_whole || !compressed.ends_with(&TAIL) {
            return None;
        }
        compressed.truncate(compressed.len().saturating_sub(TAIL.len()));
        Some(compressed)
    }
}

/// Splits at separators outside of quoted strings, and trims the parts.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let parts = text.split(move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    });
    parts.map(str::trim)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Parses a window size (RFC 7692, 7.1.2): a decimal from 8 to 15 without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let is_decimal = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    value.parse().ok().filter(|bits| is_decimal && (8..=15).contains(bits))
}

/// Inflates the client's data before tungstenite reads it.
#[derive(Default)]
pub(super) struct Inflater {
    /// Received data that has not been parsed.
    input: BytesMut,
    /// Data for tungstenite.
    output: BytesMut,
    /// How much of the input passes unchanged.
    passes: u64,
    /// The compressed message in progress.
    message: Option<Box<Inflating>>,
    failed: Option<ErrorKind>,
}

struct Inflating {
    stream: Decompress,
    /// The number of bytes inflated so far.
    length: usize,
}

impl Inflater {
    /// Adds data from the client.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Returns at most `limit` bytes for tungstenite, or none if more input is needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] for a corrupt message, and [`ErrorKind::FileTooLarge`] for one
    /// that inflates beyond the limit.
    pub(super) fn give(&mut self, limit: usize) -> Result<BytesMut, ErrorKind> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        // One frame at a time, because many small ones may inflate to a lot.
        if self.output.is_empty() {
            self.advance().inspect_err(|error| self.failed = Some(*error))?;
        }
        let given = self.output.split_to(limit.min(self.output.len()));
        // An idle connection keeps no buffer.
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(given)
    }

    fn advance(&mut self) -> Result<(), ErrorKind> {
        if self.passes == 0 && !self.next_frame()? {
            return Ok(());
        }
        let count = usize::try_from(self.passes).unwrap_or(usize::MAX).min(self.input.len());
        self.output.unsplit(self.input.split_to(count));
        self.passes = self.passes.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Returns whether the next frame passes unchanged.
    ///
    /// Otherwise, it is incomplete or has been inflated.
    fn next_frame(&mut self) -> Result<bool, ErrorKind> {
        let mut cursor = Cursor::new(&self.input);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(false),
            // tungstenite reports the error, and reads no further.
            Err(_) => {
                self.passes = u64::MAX;
                return Ok(true);
            }
        };
        let whole = cursor.position().saturating_add(length);
        let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let is_compressed = match header.opcode {
            OpCode::Data(Data::Text | Data::Binary) => header.rsv1 && self.message.is_none(),
            OpCode::Data(Data::Continue) => !header.rsv1 && self.message.is_some(),
            _ => false,
        };
        let is_sound = !header.rsv2 && !header.rsv3;
        let (Some(mask), true, Ok(length @ ..=MAX_FRAME_BYTES)) =
            (header.mask, is_compressed && is_sound, usize::try_from(length))
        else {
            self.passes = whole;
            return Ok(true);
        };
        let whole = start.saturating_add(length);
        if self.input.len() < whole {
            self.input.reserve(whole.saturating_sub(self.input.len()));
            return Ok(false);
        }
        let mut payload = self.input.split_to(whole);
        payload.advance(start);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        let mut message = self.message.take().unwrap_or_default();
        let mut inflated = Vec::new();
        message.inflate(&payload, &mut inflated)?;
        if header.is_final {
            if !message.inflate(&TAIL_AND_END, &mut inflated)? {
                return Err(ErrorKind::InvalidData);
            }
        } else {
            message.length = message.length.saturating_add(inflated.len());
            self.message = Some(message);
        }
        self.put(header, &inflated);
        Ok(false)
    }

    /// Writes plain frames that are within tungstenite's limit.
    fn put(&mut self, header: FrameHeader, mut rest: &[u8]) {
        let FrameHeader { mut opcode, is_final, .. } = header;
        loop {
            let (chunk, more) = rest.split_at(rest.len().min(MAX_FRAME_BYTES));
            let is_final = is_final && more.is_empty();
            let header = FrameHeader { is_final, opcode, mask: Some([0; 4]), ..FrameHeader::default() };
            let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            // Writing to memory cannot fail.
            let _ = header.format(length, &mut (&mut self.output).writer());
            self.output.extend_from_slice(chunk);
            if more.is_empty() {
                return;
            }
            (rest, opcode) = (more, OpCode::Data(Data::Continue));
        }
    }
}

impl Default for Inflating {
    fn default() -> Self {
        Self { stream: Decompress::new(false), length: 0 }
    }
}

impl Inflating {
    /// Inflates a part of the message, and returns whether it ended with a final block.
    fn inflate(&mut self, mut part: &[u8], inflated: &mut Vec<u8>) -> Result<bool, ErrorKind> {
        loop {
            let room = MAX_MESSAGE_BYTES.saturating_sub(self.length.saturating_add(inflated.len()));
            // One byte above the limit shows that there are more.
            inflated.reserve_exact(CHUNK.min(room.saturating_add(1)));
            let before = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress_vec(part, inflated, FlushDecompress::Sync);
            let status = status.map_err(|_| ErrorKind::InvalidData)?;
            let after = (self.stream.total_in(), self.stream.total_out());
            let taken = usize::try_from(after.0.saturating_sub(before.0)).unwrap_or(usize::MAX);
            part = part.get(taken..).unwrap_or_default();
            if self.length.saturating_add(inflated.len()) > MAX_MESSAGE_BYTES {
                return Err(ErrorKind::FileTooLarge);
            }
            match status {
                // RFC 7692, 7.2.3.4: more blocks may follow a final one.
                Status::StreamEnd => {
                    self.stream.reset(false);
                    if part.is_empty() {
                        return Ok(true);
                    }
                }
                Status::Ok | Status::BufError => {
                    if part.is_empty() && inflated.len() < inflated.capacity() {
                        return Ok(false);
                    }
                    if after == before {
                        return Err(ErrorKind::InvalidData);
                    }
                }
            }
        }
    }
}
