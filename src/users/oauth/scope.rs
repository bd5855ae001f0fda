//! What a client asks for (specification, "Scope").

use ruma::{DeviceId, OwnedDeviceId};

use super::Error;

/// Who logged in, in an id token.
const OPENID: &str = "openid";
/// Everything a client may do.
const API: [&str; 2] = [
    "urn:matrix:client:api:*",
    "urn:matrix:org.matrix.msc2967.client:api:*",
];
/// What stands before the id of the device.
const DEVICE: [&str; 2] = [
    "urn:matrix:client:device:",
    "urn:matrix:org.matrix.msc2967.client:device:",
];
/// Bytes of a scope, and of the id of a device.
const BYTES_MAX: usize = 1_024;
const DEVICE_BYTES_MAX: usize = 255;

/// A scope that may be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The device that the client wants to be.
    pub device_id: OwnedDeviceId,
    /// What of the scope is granted, as the client is told.
    pub granted: String,
}

/// Whether a scope that was granted asks for an id token.
pub fn wants_id_token(granted: &str) -> bool {
    granted.split(' ').any(|token| token == OPENID)
}

/// Reads a scope. What we do not know of it, such as `email`, is not granted.
pub fn parse(text: &str) -> Result<Scope, Error> {
    if text.len() > BYTES_MAX {
        return Err(Error::Scope("the scope is too long"));
    }
    let (mut is_whole, mut device, mut granted) = (false, None, Vec::new());
    for token in text.split_ascii_whitespace() {
        if API.contains(&token) {
            is_whole = true;
        } else if token == OPENID {
            // An id token, and no more.
        } else if let Some(id) = DEVICE.iter().find_map(|prefix| token.strip_prefix(prefix)) {
            if device.is_some_and(|known| known != id) {
                return Err(Error::Scope("the scope names more than one device"));
            }
            device = Some(id);
        } else {
            continue;
        }
        granted.push(token);
    }
    let device = device.ok_or(Error::Scope("the scope names no device"))?;
    // Characters that stand for themselves in addresses (RFC 3986, section 2.3).
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if device.is_empty() || device.len() > DEVICE_BYTES_MAX || !device.bytes().all(is_plain) {
        return Err(Error::Scope(
            "a device id has 1 to 255 characters of A-Z a-z 0-9 - . _ ~",
        ));
    }
    if !is_whole {
        return Err(Error::Scope(
            "the scope does not name the client-server API",
        ));
    }
    Ok(Scope {
        device_id: <&DeviceId>::from(device).to_owned(),
        granted: granted.join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::{parse, wants_id_token};

    #[test]
    fn a_scope_is_the_whole_api_and_one_device() {
        let stable = "urn:matrix:client:api:* urn:matrix:client:device:AbC-._~9";
        let found = parse(stable).unwrap();
        assert_eq!(
            (found.device_id.as_str(), &*found.granted),
            ("AbC-._~9", stable)
        );
        let old = "email openid urn:matrix:org.matrix.msc2967.client:api:* \
                   urn:matrix:org.matrix.msc2967.client:device:ABC";
        let found = parse(old).unwrap();
        assert_eq!(found.device_id, "ABC");
        assert_eq!(found.granted, old.split_once(' ').unwrap().1);
        assert!(wants_id_token(&found.granted) && !wants_id_token(stable));
        // Clients that know both names of the same.
        assert!(
            parse(&format!(
                "{stable} urn:matrix:org.matrix.msc2967.client:device:AbC-._~9"
            ))
            .is_ok()
        );
        for bad in [
            "",
            "openid",
            "urn:matrix:client:api:*",
            "urn:matrix:client:device:ABC",
            "urn:matrix:client:api:* urn:matrix:client:device:",
            "urn:matrix:client:api:* urn:matrix:client:device:A urn:matrix:client:device:B",
            "urn:matrix:client:api:* urn:matrix:client:device:A/B",
            "urn:matrix:client:api:* urn:matrix:client:device:Ä",
            "urn:matrix:client:api:read urn:matrix:client:device:ABC",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
