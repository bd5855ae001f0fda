//! Files as answers: whole, in part, and in the envelope that peers expect.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ruma::http_headers::{ContentDisposition, ContentDispositionType};

use super::error::ApiError;
use crate::media::{self, Served};

/// Content types that browsers may show in place (specification, "Serving inline content").
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];
/// What is served must not run (specification, "Content repository").
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types \
                      application/pdf; style-src 'unsafe-inline'; media-src 'self'; object-src \
                      'self';";
const OCTETS: &str = "application/octet-stream";

/// Part of a file: first byte, and how many.
type Part = (u64, u64);

/// A file as a client gets it.
pub(super) async fn to_client(served: Served, request: &HeaderMap) -> Result<Response, ApiError> {
    let size = served.size;
    let range = request
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let part = match range.map_or(Wish::Whole, |range| wish(range, size)) {
        Wish::Whole => None,
        Wish::Part(part) => Some(part),
        Wish::Beyond => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let error = ApiError::new(status, "M_INVALID_PARAM", "there is no such range");
            let mut response = error.into_response();
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let content_type = served.content_type.as_deref().unwrap_or(OCTETS).to_owned();
    let disposition = disposition(&content_type, served.file_name).to_string();
    let (first, length) = part.unwrap_or((0, size));
    let pieces = served.file.pieces(first, length).await;
    let pieces = pieces.map_err(media::Error::reading)?;
    let mut response = Response::new(Body::from_stream(pieces));
    if part.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{}/{size}", first + length - 1);
        set(&mut response, header::CONTENT_RANGE, &range);
    }
    for (name, value) in [
        (header::CONTENT_TYPE, content_type.as_str()),
        (header::CONTENT_DISPOSITION, &disposition),
        (header::CONTENT_LENGTH, &length.to_string()),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::ACCEPT_RANGES, "bytes"),
        // Media never changes; but who may see it is asked for each user.
        (header::CACHE_CONTROL, "private, max-age=86400, immutable"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ] {
        set(&mut response, name, value);
    }
    Ok(response)
}

/// A file as a peer gets it: an empty object, then the file.
pub(super) async fn to_peer(served: Served) -> Result<Response, ApiError> {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let content_type = served.content_type.as_deref().unwrap_or(OCTETS).to_owned();
    let disposition = disposition(&content_type, served.file_name);
    let before = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
         Content-Type: {content_type}\r\nContent-Disposition: {disposition}\r\n\r\n"
    );
    let after = format!("\r\n--{boundary}--\r\n");
    let length = before.len() as u64 + served.size + after.len() as u64;
    let piece = |text: String| stream::iter([Ok::<_, std::io::Error>(Bytes::from(text))]);
    let file = served.file.pieces(0, served.size).await;
    let file = file.map_err(media::Error::reading)?;
    let body = piece(before).chain(file).chain(piece(after));
    let mut response = Response::new(Body::from_stream(body));
    let kind = format!("multipart/mixed; boundary={boundary}");
    set(&mut response, header::CONTENT_TYPE, &kind);
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    Ok(response)
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn disposition(content_type: &str, file_name: Option<String>) -> ContentDisposition {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let inline = INLINE
        .iter()
        .any(|known| known.eq_ignore_ascii_case(essence));
    let kind = if inline {
        ContentDispositionType::Inline
    } else {
        ContentDispositionType::Attachment
    };
    ContentDisposition::new(kind).with_filename(file_name)
}

#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Whole,
    Part(Part),
    Beyond,
}

/// What a `Range` header asks for. What we do not understand, or several ranges, is answered with
/// the whole, as RFC 9110 allows.
fn wish(range: &str, size: u64) -> Wish {
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Wish::Whole;
    };
    if first.is_empty() {
        return match last.parse::<u64>() {
            Ok(0) => Wish::Beyond,
            Ok(_) if size == 0 => Wish::Beyond,
            Ok(length) => Wish::Part((size - length.min(size), length.min(size))),
            Err(_) => Wish::Whole,
        };
    }
    let Ok(first) = first.parse::<u64>() else {
        return Wish::Whole;
    };
    let last = match last {
        "" => u64::MAX,
        text => match text.parse::<u64>() {
            Ok(last) if last >= first => last,
            _ => return Wish::Whole,
        },
    };
    if first >= size {
        return Wish::Beyond;
    }
    Wish::Part((first, last.min(size - 1) - first + 1))
}

#[cfg(test)]
mod tests {
    use super::{Wish, wish};

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        for (range, found) in [
            ("bytes=0-3", Wish::Part((0, 4))),
            ("bytes=4-", Wish::Part((4, 6))),
            ("bytes=4-100", Wish::Part((4, 6))),
            ("bytes=-3", Wish::Part((7, 3))),
            ("bytes=-30", Wish::Part((0, 10))),
            ("bytes=9-9", Wish::Part((9, 1))),
            ("bytes=10-", Wish::Beyond),
            ("bytes=-0", Wish::Beyond),
            ("bytes=3-1", Wish::Whole),
            ("bytes=0-1,4-5", Wish::Whole),
            ("lines=0-1", Wish::Whole),
            ("bytes=x-1", Wish::Whole),
        ] {
            assert_eq!(wish(range, 10), found, "{range}");
        }
        assert_eq!(wish("bytes=0-", 0), Wish::Beyond);
        assert_eq!(wish("bytes=-1", 0), Wish::Beyond);
    }
}
