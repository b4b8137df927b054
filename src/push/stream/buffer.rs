//! The text that waits for its frame.

/// Tokens that are not in a frame yet.
//
// Invariants: the waiting text is `text[start..]`. It takes `json_len` bytes in JSON, and `tokens`
// tokens end in it or after it. The last of them begins at `last`, and the text before it takes
// `before` bytes in JSON. Tokens are pushed only while the frame has room, so all but the last one
// fit.
#[derive(Default)]
pub(super) struct Buffer {
    text: String,
    start: usize,
    last: usize,
    before: usize,
    json_len: usize,
    tokens: u64,
}

/// The part of the buffer that one frame takes.
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// The number of tokens that end in the piece.
    pub(super) tokens: u64,
    /// Whether the piece empties the buffer.
    pub(super) is_all: bool,
    json_len: usize,
}

impl Buffer {
    pub(super) fn push(&mut self, token: &str) {
        (self.last, self.before) = (self.text.len(), self.json_len);
        self.text.push_str(token);
        self.json_len = self.json_len.saturating_add(json_len(token));
        self.tokens = self.tokens.saturating_add(1);
    }

    /// Returns the number of bytes that the text takes in JSON.
    pub(super) fn json_len(&self) -> usize {
        self.json_len
    }

    /// Returns as much of the text as fits.
    pub(super) fn piece(&self, room: usize) -> Piece<'_> {
        let text = |end: usize| self.text.get(self.start..end).unwrap_or_default();
        if self.json_len <= room {
            return Piece { text: text(self.text.len()), tokens: self.tokens, is_all: true, json_len: self.json_len };
        }
        let (mut json_len, mut end) = (self.before, self.last);
        for character in self.text.get(self.last..).unwrap_or_default().chars() {
            let with = json_len.saturating_add(self::json_len(character.encode_utf8(&mut [0; 4])));
            if with > room {
                break;
            }
            json_len = with;
            end = end.saturating_add(character.len_utf8());
        }
        Piece { text: text(end), tokens: self.tokens.saturating_sub(1), is_all: false, json_len }
    }

    /// Removes the text that `piece` has returned.
    pub(super) fn remove(&mut self, room: usize) {
        let Piece { text, tokens, is_all, json_len } = self.piece(room);
        let end = self.start.saturating_add(text.len());
        self.tokens = self.tokens.saturating_sub(tokens);
        self.json_len = self.json_len.saturating_sub(json_len);
        // The remaining text is the end of the last token.
        if is_all {
            self.text.clear();
            self.start = 0;
        } else if end > self.text.len() / 2 {
            self.text.drain(..end);
            self.start = 0;
        } else {
            self.start = end;
        }
        (self.last, self.before) = (self.start, 0);
    }

    /// Drops the text that does not fit in one frame.
    pub(super) fn truncate(&mut self, room: usize) {
        let Piece { text, tokens, json_len, .. } = self.piece(room);
        self.text.truncate(self.start.saturating_add(text.len()));
        (self.tokens, self.json_len) = (tokens, json_len);
    }
}

/// Returns the number of bytes that a text takes between the quotes of a JSON string.
fn json_len(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).fold(0, usize::saturating_add)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test that panics has failed")]
mod tests {
    use super::json_len;
    use proptest::prelude::*;

    #[test]
    fn json_len_is_correct_for_every_character() {
        for character in (0..=0x1_0000).filter_map(char::from_u32) {
            let text = character.to_string();
            assert_eq!(json_len(&text), serde_json::to_string(&text).unwrap().len() - 2, "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn json_len_is_correct_for_any_string(text in any::<String>()) {
            assert_eq!(json_len(&text), serde_json::to_string(&text).unwrap().len() - 2);
        }
    }
}
