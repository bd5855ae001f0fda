//! Server ACLs (specification, "Server access control lists").

use ruma::{ServerName, events::StateEventType};
use serde::Deserialize;

use crate::rooms::{Error, Rooms, resident::Room};

#[derive(Deserialize)]
struct Acl {
    #[serde(default = "yes")]
    allow_ip_literals: bool,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Acl {
    fn allows(&self, server: &ServerName) -> bool {
        // The port plays no part.
        let host = server.host();
        if !self.allow_ip_literals && server.is_ip_literal() {
            return false;
        }
        let host = host.to_lowercase();
        let matches = |globs: &[String]| {
            globs
                .iter()
                .any(|glob| matches(glob.to_lowercase().as_bytes(), host.as_bytes()))
        };
        !matches(&self.deny) && matches(&self.allow)
    }
}

/// `*`: any run of characters, `?`: any one. Linear in the product of both lengths at worst.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if g < glob.len() && (glob[g] == b'?' || glob[g] == text[t]) && glob[g] != b'*' {
            g += 1;
            t += 1;
        } else if g < glob.len() && glob[g] == b'*' {
            star = Some((g, t));
            g += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            g = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

/// Whether a server may take part in a room.
pub async fn is_allowed(rooms: &Rooms, room: &Room, server: &ServerName) -> Result<bool, Error> {
    let head = room.head();
    let event = rooms
        .state_event(
            room,
            &head.state.entries,
            &StateEventType::RoomServerAcl,
            "",
        )
        .await?;
    Ok(event
        .and_then(|event| event.content_as::<Acl>())
        .is_none_or(|acl| acl.allows(server)))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::{Acl, matches};

    fn acl(json: &str) -> Acl {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn globs_match_whole_names() {
        assert!(matches(b"*.example", b"a.b.example"));
        assert!(!matches(b"*.example", b"example"));
        assert!(matches(b"a?c*", b"abcdef"));
        assert!(!matches(b"a?c", b"abcd"));
        assert!(matches(b"*", b""));
    }

    #[test]
    fn deny_beats_allow_and_ports_and_case_play_no_part() {
        let acl = acl(r#"{"allow":["*"],"deny":["*.Evil.example"]}"#);
        assert!(acl.allows(server_name!("good.example:8448")));
        assert!(!acl.allows(server_name!("x.EVIL.example:8448")));
    }

    #[test]
    fn who_is_not_allowed_is_denied() {
        assert!(!acl("{}").allows(server_name!("a.example")));
        assert!(acl(r#"{"allow":["*"]}"#).allows(server_name!("1.2.3.4")));
        let no_ip = acl(r#"{"allow":["*"],"allow_ip_literals":false}"#);
        assert!(!no_ip.allows(server_name!("1.2.3.4:1")));
        assert!(!no_ip.allows(server_name!("[::1]")));
    }
}
