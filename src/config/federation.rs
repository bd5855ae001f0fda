//! `[federation]`: which servers we have to do with.

use std::net::IpAddr;

/// Bytes of a pattern: as long as a host name can be.
const PATTERN_MAX: usize = 255;

/// Which servers we have to do with.
#[derive(Clone, Debug)]
pub struct Federation {
    /// Servers that are allowed; empty: everybody.
    pub allow: Vec<ServerRule>,
    /// Servers that are refused, whatever `allow` says.
    pub deny: Vec<ServerRule>,
    /// What refused servers in a room mean for those who want to join it.
    pub unlisted_in_room: UnlistedInRoom,
    /// Days that messages to devices wait for a server that is away.
    pub keep_messages_days: u32,
    /// Messages to devices that wait for one server.
    pub keep_messages_max: u32,
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            unlisted_in_room: UnlistedInRoom::default(),
            keep_messages_days: 90,
            keep_messages_max: 100_000,
        }
    }
}

/// An entry of a list of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRule {
    /// Pattern of the host, as [`server_pattern`] makes it.
    pub server: String,
    /// Why it stands there.
    pub reason: Option<String>,
    /// The entry holds until then (milliseconds since 1970); `None`: without end.
    pub until_ts: Option<i64>,
}

/// What refused servers in a room mean for those who want to join it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnlistedInRoom {
    /// Nobody of ours joins it.
    Refuse,
    /// It is joined, and noted.
    #[default]
    Warn,
    /// It is joined.
    Allow,
}

impl UnlistedInRoom {
    /// Every value, with its name in the configuration.
    pub const ALL: [(&'static str, Self); 3] = [
        ("refuse", Self::Refuse),
        ("warn", Self::Warn),
        ("allow", Self::Allow),
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Warn => "warn",
            Self::Allow => "allow",
        }
    }
}

impl std::str::FromStr for UnlistedInRoom {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value).ok_or(())
    }
}

/// A pattern in the form in which it is compared: a host name or an address, with `*` for any run
/// of characters and `?` for any one. `None`: it is none, or names a port, which plays no part.
pub fn server_pattern(text: &str) -> Option<String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-._*?".contains(c);
    let of_address = |c: char| c.is_ascii_hexdigit() || ":.*?".contains(c);
    let fits = match text.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.chars().all(of_address)),
        None => text.chars().all(of_name),
    };
    let host = host_form(text);
    (fits && !host.is_empty() && host.len() <= PATTERN_MAX).then_some(host)
}

/// A host in the one form in which hosts are compared: lower case, no dot at the end, addresses
/// written the usual way.
pub fn host_form(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Err(_) => host.trim_end_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::server_pattern;

    #[test]
    fn patterns_are_hosts_in_one_form() {
        let pattern = |text| server_pattern(text);
        assert_eq!(pattern("*.Amt.Example.").as_deref(), Some("*.amt.example"));
        assert_eq!(pattern("[0:0::1]").as_deref(), Some("[::1]"));
        assert_eq!(pattern("192.0.2.?").as_deref(), Some("192.0.2.?"));
        for wrong in [
            "",
            ".",
            "amt.example:8448",
            "https://amt.example",
            "a b",
            "[::1]:1",
            "ä",
        ] {
            assert_eq!(pattern(wrong), None, "{wrong}");
        }
    }
}
