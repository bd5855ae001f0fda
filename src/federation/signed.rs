//! The signature of a peer's request (specification, "Request authentication").

use ruma::{
    ServerName, SigningKeyAlgorithm,
    api::federation::authentication::{XMatrix, XMatrixVerificationError},
    signatures::{PublicKeyMap, VerificationError, verify_canonical_json_bytes},
};
use uuid::Uuid;

/// Numbers of one request that canonical JSON does not have. A request with more is refused.
const ODD_NUMBERS_MAX: usize = 4096;
/// The integers that canonical JSON has.
const INTEGERS: std::ops::RangeInclusive<i64> = -((1 << 53) - 1)..=(1 << 53) - 1;

/// Checks the signature over method, URI as sent, origin, destination and body.
///
/// A body may hold numbers that canonical JSON has not: events of room versions 1 to 5 may, and
/// one bad event must cost that event and not all that is sent with it. Peers sign such numbers as
/// they write them, so that is how they are verified.
pub fn verify(
    claimed: &XMatrix,
    request: &http::Request<&[u8]>,
    own: &ServerName,
    keys: &PublicKeyMap,
) -> Result<(), XMatrixVerificationError> {
    match claimed.verify_http_request(request, own, keys) {
        Err(XMatrixVerificationError::Signature(VerificationError::Json(why))) => {
            as_written(claimed, request, own, keys)
                .unwrap_or_else(|| Err(VerificationError::Json(why)))
                .map_err(XMatrixVerificationError::Signature)
        }
        other => other,
    }
}

/// The check over numbers as written. `None` where they are not what is wrong with the body.
fn as_written(
    claimed: &XMatrix,
    request: &http::Request<&[u8]>,
    own: &ServerName,
    keys: &PublicKeyMap,
) -> Option<Result<(), VerificationError>> {
    let mark = Uuid::new_v4().simple().to_string();
    let body = std::str::from_utf8(request.body()).ok()?;
    let (body, numbers) = set_aside(body, &mark)?;
    let mut view = http::Request::new(body);
    *view.method_mut() = request.method().clone();
    *view.uri_mut() = request.uri().clone();
    let object = XMatrix::request_object(&view, &claimed.origin, own).ok()?;
    let signed = put_back(&serde_json::to_string(&object).ok()?, &mark, &numbers)?;
    let key = keys
        .get(claimed.origin.as_str())?
        .get(claimed.key.as_str())?;
    Some(verify_canonical_json_bytes(
        &SigningKeyAlgorithm::Ed25519,
        key.as_bytes(),
        claimed.sig.as_bytes(),
        signed.as_bytes(),
    ))
}

/// `json` with a marked string in place of each number that canonical JSON has not, and those
/// numbers as written. `None` where there are none, or too many.
fn set_aside<'a>(json: &'a str, mark: &str) -> Option<(String, Vec<&'a str>)> {
    let bytes = json.as_bytes();
    let (mut out, mut numbers) = (String::with_capacity(json.len()), Vec::new());
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|byte| {
                        matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
                    })
                    .count();
                let number = &json[at..at + length];
                if !canonical(number) {
                    if numbers.len() == ODD_NUMBERS_MAX {
                        return None;
                    }
                    out.push_str(&json[copied..at]);
                    let index = numbers.len().to_string();
                    out.extend(["\"", mark, &index, "\""]);
                    numbers.push(number);
                    copied = at + length;
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    out.push_str(&json[copied..]);
    (!numbers.is_empty()).then_some((out, numbers))
}

fn canonical(number: &str) -> bool {
    number != "-0" && number.parse().is_ok_and(|it| INTEGERS.contains(&it))
}

/// `json` with the numbers back in their places.
fn put_back(json: &str, mark: &str, numbers: &[&str]) -> Option<String> {
    let mark = format!("\"{mark}");
    let mut parts = json.split(&mark);
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (index, rest) = part.split_once('"')?;
        out.push_str(numbers.get(index.parse::<usize>().ok()?)?);
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{put_back, set_aside};

    #[test]
    fn numbers_are_set_aside_and_put_back() {
        let json = r#"{"a":1.5,"b":["1.5 \" 2.5",-7,1e3],"c":9007199254740992,"d":-0,"e":12}"#;
        let (aside, numbers) = set_aside(json, "mark").unwrap();
        assert_eq!(numbers, ["1.5", "1e3", "9007199254740992", "-0"]);
        let expected =
            r#"{"a":"mark0","b":["1.5 \" 2.5",-7,"mark1"],"c":"mark2","d":"mark3","e":12}"#;
        assert_eq!(aside, expected);
        assert_eq!(put_back(&aside, "mark", &numbers).unwrap(), json);
    }

    #[test]
    fn canonical_bodies_and_broken_ones_have_nothing_to_set_aside() {
        for json in [r#"{"a":1}"#, r#"{"a":"1.5"#, r#"{"a":"\"#, ""] {
            assert!(set_aside(json, "mark").is_none(), "{json}");
        }
    }
}
