//! Which servers we have to do with, as one value: allowed and denied ones by name and pattern.
//!
//! Deny wins over allow; an empty list of allowed servers allows everybody. A list in which every
//! entry has ended is not empty: nobody gets in because a date has passed.

use std::collections::HashMap;

use ruma::ServerName;

use crate::config::{ServerRule, UnlistedInRoom, federation::host_form};

/// Patterns of one list that are neither a name nor `*.` before a name: each is tried for each
/// server.
pub const GLOBS_MAX: usize = 1_000;

/// The rules. Made whole, never changed.
#[derive(Debug, Default)]
pub struct Rules {
    allow: Patterns,
    deny: Patterns,
    /// What refused servers in a room mean.
    pub unlisted_in_room: UnlistedInRoom,
    /// Ends of entries, in order.
    ends: Vec<i64>,
}

/// Why a server is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// It is denied, with the reason that was given.
    Denied(Option<&'a str>),
    /// It is not among those that are allowed.
    NotAllowed,
}

impl Rules {
    /// Of the entries of both lists.
    pub fn new<'a>(
        allow: impl Iterator<Item = &'a ServerRule> + Clone,
        deny: impl Iterator<Item = &'a ServerRule> + Clone,
        unlisted_in_room: UnlistedInRoom,
    ) -> Self {
        let ends = allow.clone().chain(deny.clone());
        let mut ends: Vec<i64> = ends.filter_map(|rule| rule.until_ts).collect();
        ends.sort_unstable();
        Self {
            allow: Patterns::new(allow),
            deny: Patterns::new(deny),
            unlisted_in_room,
            ends,
        }
    }

    /// Why that server is refused at that time; `None`: it is not.
    pub fn refusal(&self, server: &ServerName, now: i64) -> Option<Refusal<'_>> {
        let host = host_form(server.host());
        if let Some(entry) = self.deny.find(&host, now) {
            return Some(Refusal::Denied(entry.reason.as_deref()));
        }
        let allowed = self.allow.count == 0 || self.allow.find(&host, now).is_some();
        (!allowed).then_some(Refusal::NotAllowed)
    }

    /// Whether that host is denied: for addresses that are no servers, of which none is allowed.
    pub fn denies_host(&self, host: &str, now: i64) -> bool {
        self.deny.find(&host_form(host), now).is_some()
    }

    /// Whether there is a list of allowed servers.
    pub fn has_allowed(&self) -> bool {
        self.allow.count > 0
    }

    /// The next time after `now` at which an entry ends.
    pub fn next_end(&self, now: i64) -> Option<i64> {
        let at = self.ends.partition_point(|end| *end <= now);
        self.ends.get(at).copied()
    }
}

/// One list, by the kind of pattern.
#[derive(Debug, Default)]
struct Patterns {
    count: usize,
    exact: HashMap<String, Entry>,
    /// `*.name`, by name: every name above a host is looked up.
    below: HashMap<String, Entry>,
    globs: Vec<(String, Entry)>,
}

#[derive(Clone, Debug)]
struct Entry {
    reason: Option<String>,
    until_ts: Option<i64>,
}

impl Entry {
    fn holds(&self, now: i64) -> bool {
        self.until_ts.is_none_or(|until| until > now)
    }
}

impl Patterns {
    fn new<'a>(rules: impl Iterator<Item = &'a ServerRule>) -> Self {
        let mut patterns = Self::default();
        for rule in rules {
            patterns.count += 1;
            let entry = Entry {
                reason: rule.reason.clone(),
                until_ts: rule.until_ts,
            };
            let (map, key) = if !has_wildcard(&rule.server) {
                (&mut patterns.exact, rule.server.as_str())
            } else if let Some(name) = name_below(&rule.server) {
                (&mut patterns.below, name)
            } else {
                if patterns.globs.len() < GLOBS_MAX {
                    patterns.globs.push((rule.server.clone(), entry));
                }
                continue;
            };
            // Of two entries for one server the one that holds longer counts.
            let longer = |known: &Entry| {
                let end = |entry: &Entry| entry.until_ts.unwrap_or(i64::MAX);
                end(&entry) > end(known)
            };
            if map.get(key).is_none_or(longer) {
                map.insert(key.to_owned(), entry);
            }
        }
        patterns
    }

    fn find(&self, host: &str, now: i64) -> Option<&Entry> {
        let holds = |entry: &&Entry| entry.holds(now);
        let exact = self.exact.get(host).filter(holds);
        let below = || {
            host.match_indices('.')
                .find_map(|(at, _)| self.below.get(&host[at + 1..]).filter(holds))
        };
        let globs = || {
            self.globs.iter().find_map(|(glob, entry)| {
                let fits = entry.holds(now) && matches(glob.as_bytes(), host.as_bytes());
                fits.then_some(entry)
            })
        };
        exact.or_else(below).or_else(globs)
    }
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

fn name_below(pattern: &str) -> Option<&str> {
    let name = pattern.strip_prefix("*.")?;
    (!has_wildcard(name)).then_some(name)
}

/// Whether a pattern is one of those of which there are [`GLOBS_MAX`] at most.
pub fn is_glob(pattern: &str) -> bool {
    has_wildcard(pattern) && name_below(pattern).is_none()
}

/// `*`: any run of characters, `?`: any one. Linear in the product of both lengths at worst.
pub fn matches(glob: &[u8], text: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use ruma::ServerName;

    use super::{Refusal, Rules, matches};
    use crate::config::{ServerRule, UnlistedInRoom, federation::server_pattern};

    fn rules(allow: &[(&str, Option<i64>)], deny: &[(&str, Option<i64>)]) -> Rules {
        let list = |entries: &[(&str, Option<i64>)]| -> Vec<ServerRule> {
            let rule = |(server, until_ts): &(&str, Option<i64>)| ServerRule {
                server: server_pattern(server).unwrap(),
                reason: Some(format!("because of {server}")),
                until_ts: *until_ts,
            };
            entries.iter().map(rule).collect()
        };
        Rules::new(list(allow).iter(), list(deny).iter(), UnlistedInRoom::Warn)
    }

    fn allows(rules: &Rules, server: &str, now: i64) -> bool {
        let server = ServerName::parse(server).unwrap();
        rules.refusal(&server, now).is_none()
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
    fn without_a_list_everybody_is_allowed_but_who_is_denied() {
        let rules = rules(&[], &[("Evil.example", None), ("*.bad.example", None)]);
        assert!(allows(&rules, "good.example", 0));
        assert!(allows(&rules, "bad.example", 0));
        for refused in ["evil.example:8448", "EVIL.example.", "a.b.bad.example"] {
            assert!(!allows(&rules, refused, 0), "{refused}");
        }
        let server = ServerName::parse("evil.example").unwrap();
        let why = Some(Refusal::Denied(Some("because of Evil.example")));
        assert_eq!(rules.refusal(&server, 0), why);
    }

    #[test]
    fn deny_beats_allow_and_addresses_are_compared_as_such() {
        let rules = rules(
            &[
                ("*.example", None),
                ("[2001:db8::1]", None),
                ("x?.net", None),
            ],
            &[("b.example", None)],
        );
        for allowed in ["a.example", "[2001:0db8:0::1]:8448", "x1.net:1"] {
            assert!(allows(&rules, allowed, 0), "{allowed}");
        }
        for refused in ["b.example", "example", "x.net", "[2001:db8::2]"] {
            assert!(!allows(&rules, refused, 0), "{refused}");
        }
    }

    #[test]
    fn entries_end_and_a_list_that_has_ended_allows_nobody() {
        let rules = rules(&[("a.example", Some(10))], &[("a.example", Some(5))]);
        assert!(!allows(&rules, "a.example", 4), "denied");
        assert!(allows(&rules, "a.example", 5));
        assert!(!allows(&rules, "a.example", 10));
        assert!(!allows(&rules, "b.example", 10));
        assert_eq!(rules.next_end(4), Some(5));
        assert_eq!(rules.next_end(5), Some(10));
        assert_eq!(rules.next_end(10), None);
    }

    #[test]
    fn a_long_list_is_no_slower_than_a_short_one() {
        let names: Vec<String> = (0..50_000).map(|i| format!("*.amt{i}.example")).collect();
        let list: Vec<(&str, Option<i64>)> = names.iter().map(|name| (&**name, None)).collect();
        let rules = rules(&list, &[]);
        assert!(rules.allow.globs.is_empty(), "nothing is tried one by one");
        assert!(allows(&rules, "m.amt49999.example", 0));
        assert!(!allows(&rules, "m.amt50000.example", 0));
    }
}
