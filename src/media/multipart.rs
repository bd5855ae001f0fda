//! `multipart/mixed` as peers answer with media: an object, then the bytes or where they are.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;

/// Bytes of everything that is not the media itself.
const AROUND_MAX: usize = 64 << 10;
/// Characters of a boundary (RFC 2046).
const BOUNDARY_MAX: usize = 70;

/// Headers of the part with the media.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) content_type: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) location: Option<String>,
}

/// Reads an answer piece by piece.
#[derive(Debug)]
pub(super) struct Parser {
    delimiter: Vec<u8>,
    buffer: BytesMut,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preamble,
    ObjectHeaders,
    Object,
    MediaHeaders,
    Media,
    End,
}

/// What a piece brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The headers of the media.
    Headers(Headers),
    /// Bytes of the media.
    Bytes(Bytes),
}

impl Parser {
    /// For an answer with that content type.
    pub(super) fn new(content_type: &str) -> Result<Self, &'static str> {
        let mut parts = content_type.split(';');
        let kind = parts.next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("multipart/mixed") {
            return Err("the answer is not multipart/mixed");
        }
        let boundary = parts
            .filter_map(|part| part.trim().split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case("boundary"))
            .map(|(_, value)| value.trim().trim_matches('"'))
            .filter(|value| (1..=BOUNDARY_MAX).contains(&value.len()))
            .ok_or("the answer names no boundary")?;
        Ok(Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first boundary may stand at the very beginning.
            buffer: BytesMut::from("\r\n"),
            stage: Stage::Preamble,
        })
    }

    /// Takes a piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// What is in the pieces so far; `None`: more are needed. Call until it is.
    pub(super) fn next(&mut self) -> Result<Option<Found>, &'static str> {
        loop {
            match self.stage {
                Stage::Preamble | Stage::Object => {
                    if self.until_delimiter()?.is_none() {
                        return Ok(None);
                    }
                    self.stage = match self.stage {
                        Stage::Preamble => Stage::ObjectHeaders,
                        _ => Stage::MediaHeaders,
                    };
                }
                Stage::ObjectHeaders => {
                    if self.headers()?.is_none() {
                        return Ok(None);
                    }
                    self.stage = Stage::Object;
                }
                Stage::MediaHeaders => {
                    let Some(headers) = self.headers()? else {
                        return Ok(None);
                    };
                    self.stage = Stage::Media;
                    return Ok(Some(Found::Headers(headers)));
                }
                Stage::Media => return Ok(self.media()),
                Stage::End => {
                    self.buffer.clear();
                    return Ok(None);
                }
            }
        }
    }

    /// Whether the media ended with its boundary: an answer that broke off has none.
    pub(super) fn is_whole(&self) -> bool {
        self.stage == Stage::End
    }

    fn until_delimiter(&mut self) -> Result<Option<()>, &'static str> {
        let Some(at) = memmem::find(&self.buffer, &self.delimiter) else {
            return self.bounded();
        };
        self.buffer.advance(at + self.delimiter.len());
        Ok(Some(()))
    }

    fn bounded<T>(&self) -> Result<Option<T>, &'static str> {
        if self.buffer.len() > AROUND_MAX {
            return Err("too much around the media");
        }
        Ok(None)
    }

    fn headers(&mut self) -> Result<Option<Headers>, &'static str> {
        if self.buffer.starts_with(b"--") {
            return Err("the answer has too few parts");
        }
        let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") else {
            return self.bounded();
        };
        if end > AROUND_MAX {
            return Err("too much around the media");
        }
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.advance(end + 4);
        let mut headers = Headers::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = Some(value.trim().to_owned());
            match name.trim().to_ascii_lowercase().as_str() {
                "content-type" => headers.content_type = value,
                "content-disposition" => headers.content_disposition = value,
                "location" => headers.location = value,
                _ => {}
            }
        }
        Ok(Some(headers))
    }

    fn media(&mut self) -> Option<Found> {
        if let Some(at) = memmem::find(&self.buffer, &self.delimiter) {
            let bytes = self.buffer.split_to(at).freeze();
            self.stage = Stage::End;
            return (!bytes.is_empty()).then_some(Found::Bytes(bytes));
        }
        // The end may be the beginning of the boundary.
        let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
        (sure > 0).then(|| Found::Bytes(self.buffer.split_to(sure).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Headers, Parser};

    const ANSWER: &[u8] = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n\
        Content-Type: text/plain\r\nContent-Disposition: inline; filename=a\r\n\r\n\
        one\r\n--two\r\n\r\n--b--\r\n";

    fn read(answer: &[u8], step: usize) -> (Option<Headers>, Vec<u8>, bool) {
        let mut parser = Parser::new("multipart/mixed; boundary=\"b\"").unwrap();
        let (mut headers, mut bytes) = (None, Vec::new());
        for piece in answer.chunks(step) {
            parser.push(piece);
            while let Some(found) = parser.next().unwrap() {
                match found {
                    Found::Headers(found) => headers = Some(found),
                    Found::Bytes(found) => bytes.extend_from_slice(&found),
                }
            }
        }
        (headers, bytes, parser.is_whole())
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        for step in 1..=ANSWER.len() {
            let (headers, bytes, whole) = read(ANSWER, step);
            assert_eq!(
                headers.unwrap().content_type.as_deref(),
                Some("text/plain"),
                "{step}"
            );
            assert_eq!(bytes, b"one\r\n--two\r\n", "{step}");
            assert!(whole, "{step}");
        }
    }

    #[test]
    fn an_answer_that_breaks_off_is_not_whole() {
        assert!(!read(&ANSWER[..ANSWER.len() - 8], 7).2);
    }

    #[test]
    fn a_location_is_found_and_an_empty_part_is_empty() {
        let answer = b"\r\n--b\r\n\r\n{}\r\n--b\r\nLocation: https://x/y\r\n\r\n\r\n--b--";
        let (headers, bytes, whole) = read(answer, 3);
        assert_eq!(headers.unwrap().location.as_deref(), Some("https://x/y"));
        assert_eq!((bytes.len(), whole), (0, true));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Parser::new("text/plain").is_err());
        assert!(Parser::new("multipart/mixed").is_err());
        let mut parser = Parser::new("multipart/mixed; boundary=b").unwrap();
        parser.push(&vec![b'x'; 100_000]);
        assert!(parser.next().is_err());
        let mut parser = Parser::new("multipart/mixed; boundary=b").unwrap();
        parser.push(b"--b--\r\n");
        assert!(parser.next().is_err());
    }
}
