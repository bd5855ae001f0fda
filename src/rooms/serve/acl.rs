//! Server ACLs (specification, "Server access control lists").

use ruma::{ServerName, events::StateEventType};
use serde::Deserialize;

use crate::{
    federation::rules,
    rooms::{Error, Rooms, resident::Room},
};

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
                .any(|glob| rules::matches(glob.to_lowercase().as_bytes(), host.as_bytes()))
        };
        !matches(&self.deny) && matches(&self.allow)
    }
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

    use super::Acl;

    fn acl(json: &str) -> Acl {
        serde_json::from_str(json).unwrap()
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
