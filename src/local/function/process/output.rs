//! The output of a process, line by line.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// The maximum length of a line in bytes; longer lines are logged in pieces.
const MAX_LINE: usize = 16 * 1024;
/// The number of last lines that an error shows.
const LAST_LINES: usize = 5;
/// The maximum number of bytes of each of those lines.
const LAST_LINE: usize = 500;

/// Passes on each line until the output ends, even if it is not UTF-8.
///
/// It reads to the end, because a closed pipe would break the function.
pub(super) async fn read_lines(output: impl AsyncRead + Unpin, mut line: impl FnMut(&str)) {
    let mut output = BufReader::new(output);
    let mut pending = Vec::new();
    while let Ok(bytes) = output.fill_buf().await {
        if bytes.is_empty() {
            break;
        }
        let room = MAX_LINE.saturating_sub(pending.len());
        let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
        let taken = bytes.get(..end.unwrap_or(room).min(bytes.len())).unwrap_or_default();
        pending.extend_from_slice(taken);
        let is_over = end.is_some();
        let used = taken.len().saturating_add(usize::from(is_over));
        output.consume(used);
        if is_over || pending.len() >= MAX_LINE {
            line(String::from_utf8_lossy(&pending).trim_end_matches('\r'));
            pending.clear();
        }
    }
    if !pending.is_empty() {
        line(&String::from_utf8_lossy(&pending));
    }
}

/// The last lines of an output, which the process's error shows.
#[derive(Default)]
pub(super) struct LastLines(VecDeque<String>);

impl LastLines {
    pub(super) fn push(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.0.len() >= LAST_LINES {
            self.0.pop_front();
        }
        let end = line.char_indices().map(|(at, _)| at).find(|at| *at >= LAST_LINE).unwrap_or(line.len());
        self.0.push_back(line.get(..end).unwrap_or_default().to_owned());
    }

    /// Returns the text to append to an error, which is empty without output.
    pub(super) fn suffix(&self) -> String {
        match self.0.is_empty() {
            true => String::new(),
            false => {
                format!("; its last output: {}", self.0.iter().map(String::as_str).collect::<Vec<_>>().join(" | "))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a panic fails the test")]
mod tests {
    use super::*;

    async fn lines(output: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        read_lines(output, |line| lines.push(line.to_owned())).await;
        lines
    }

    #[tokio::test]
    async fn lines_of_any_bytes_are_read() {
        assert_eq!(lines(b"a\r\n\nlatin-1: \xe9\nend").await, ["a", "", "latin-1: \u{fffd}", "end"]);
        assert_eq!(lines(b"").await, [""; 0]);
    }

    #[tokio::test]
    async fn line_without_an_end_is_cut() {
        let pieces = lines(&[b'x'; 3 * MAX_LINE + 1]).await;
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, MAX_LINE, 1]);
        let whole = [vec![b'x'; MAX_LINE - 1], b"\ny\n".to_vec()].concat();
        assert_eq!(lines(&whole).await.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE - 1, 1]);
    }

    #[test]
    fn error_shows_the_last_lines() {
        let mut last = LastLines::default();
        assert_eq!(last.suffix(), "");
        for line in ["one", "two", " ", "three", "four", "five", "six"] {
            last.push(line);
        }
        assert_eq!(last.suffix(), "; its last output: two | three | four | five | six");
    }
}
