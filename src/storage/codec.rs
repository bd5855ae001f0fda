//! How bodies and number lists are laid out in `bytea` columns.

use std::cell::RefCell;

use super::Error;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Shorter bodies do not get smaller.
const COMPRESS_FROM: usize = 256;
/// Room versions bound an event to 64 KiB; bodies here may be longer lists of stripped state.
const BODY_MAX: usize = 16 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = RefCell::new(
        zstd::bulk::Compressor::new(1).ok()
    );
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = RefCell::new(
        zstd::bulk::Decompressor::new().ok()
    );
}

/// A body as stored: one codec byte, then the (compressed) bytes.
pub fn encode_body(json: &str) -> Vec<u8> {
    if json.len() >= COMPRESS_FROM {
        let packed = COMPRESSOR
            .with_borrow_mut(|compressor| compressor.as_mut()?.compress(json.as_bytes()).ok());
        if let Some(packed) = packed
            && packed.len() < json.len()
        {
            let mut body = Vec::with_capacity(packed.len() + 1);
            body.push(ZSTD);
            body.extend_from_slice(&packed);
            return body;
        }
    }
    let mut body = Vec::with_capacity(json.len() + 1);
    body.push(PLAIN);
    body.extend_from_slice(json.as_bytes());
    body
}

/// The JSON of a stored body.
pub fn decode_body(table: &'static str, body: &[u8]) -> Result<String, Error> {
    let broken = |what: &str| Error::Inconsistent {
        table,
        what: format!("body: {what}"),
    };
    let (codec, bytes) = body.split_first().ok_or_else(|| broken("empty"))?;
    let json = match *codec {
        PLAIN => bytes.to_vec(),
        ZSTD => decompress(bytes).ok_or_else(|| broken("zstd"))?,
        other => return Err(broken(&format!("codec {other}"))),
    };
    String::from_utf8(json).map_err(|_| broken("not UTF-8"))
}

/// Takes as much memory as the frame says that it holds, and not more than a body may have.
fn decompress(bytes: &[u8]) -> Option<Vec<u8>> {
    let size = zstd::zstd_safe::get_frame_content_size(bytes).ok()??;
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size <= BODY_MAX)?;
    DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.as_mut()?.decompress(bytes, size).ok())
}

/// Appends a number, seven bits a byte.
pub fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Takes a number off the front; `None` where the bytes end or it is too long.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Signed numbers with small absolute values become small unsigned ones.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// A list of nids as stored.
pub fn encode_nids(nids: impl IntoIterator<Item = i64>) -> Vec<u8> {
    let mut out = Vec::new();
    for nid in nids {
        push_varint(&mut out, nid.cast_unsigned());
    }
    out
}

/// The nids of a stored list.
pub fn decode_nids(table: &'static str, mut bytes: &[u8]) -> Result<Vec<i64>, Error> {
    let mut nids = Vec::new();
    while !bytes.is_empty() {
        let nid = take_varint(&mut bytes).ok_or_else(|| Error::Inconsistent {
            table,
            what: "broken list of nids".to_owned(),
        })?;
        nids.push(nid.cast_signed());
    }
    Ok(nids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode_body, decode_nids, encode_body, encode_nids, unzigzag, zigzag};

    proptest! {
        #[test]
        fn bodies_round_trip(json in ".{0,2000}") {
            prop_assert_eq!(decode_body("t", &encode_body(&json)).unwrap(), json);
        }

        #[test]
        fn nids_round_trip(nids in prop::collection::vec(0..i64::MAX, 0..50)) {
            prop_assert_eq!(decode_nids("t", &encode_nids(nids.clone())).unwrap(), nids);
        }

        #[test]
        fn zigzag_round_trips(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn broken_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = decode_body("t", &bytes);
            let _ = decode_nids("t", &bytes);
        }
    }
}
