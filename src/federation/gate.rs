//! The gate: the rules in force, of the configuration and of administrators, and what they refuse.
//!
//! Whoever asks gets the rules as one value that is swapped as a whole: when the configuration is
//! read again, and when the stream log tells that an administrator changed an entry on any node.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use moka::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{broadcast, watch};

use super::{
    Error,
    rules::{GLOBS_MAX, Refusal, Rules, is_glob},
};
use crate::{
    clock::{Bucket, now_ms},
    config::{self, ServerRule, UnlistedInRoom, federation::server_pattern},
    storage::{
        self, Db, LogEntry, LogKind, LogRow, UserNid,
        server_rules::{self, Row},
    },
};

/// How long the same refusal of the same server is not told again.
const QUIET: Duration = Duration::from_mins(1);
/// Refusals that are remembered as told.
const TOLD_MAX: u64 = 10_000;
/// Lines about refusals a second, and at once: names can be made up by whoever calls.
const LINES: (f64, f64) = (1.0, 100.0);
/// Characters of a reason.
const REASON_MAX: usize = 1_000;
/// How often the rules are looked at when nothing happens.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// Pause after the rules could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// What a refused server was to do, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// It asked something of us.
    Inbound,
    /// We were to ask something of it.
    Outbound,
    /// An event of its users came through another server.
    Event,
    /// It is in a room that somebody of ours wants to join.
    Room,
}

/// One of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Servers that are allowed.
    Allow,
    /// Servers that are refused.
    Deny,
}

impl List {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// The list of that name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Allow, Self::Deny]
            .into_iter()
            .find(|list| list.name() == name)
    }
}

/// An entry and where it is from.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its list.
    pub list: List,
    /// The entry.
    pub rule: ServerRule,
    /// When an administrator made it; `None`: it stands in the configuration.
    pub since_ts: Option<i64>,
}

/// Lets servers through or not. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: OwnedServerName,
    db: Db,
    /// What the rules are made of.
    sources: Mutex<Sources>,
    rules: ArcSwap<Rules>,
    changed: watch::Sender<()>,
    told: Cache<(Way, String), ()>,
    lines: Mutex<Lines>,
}

#[derive(Clone, Debug, Default)]
struct Sources {
    configured: Arc<config::Federation>,
    stored: Arc<Vec<Listed>>,
}

#[derive(Debug)]
struct Lines {
    bucket: Bucket,
    left_out: u64,
}

impl Gate {
    /// With the rules of the configuration.
    pub fn new(own: OwnedServerName, config: &config::Federation, db: Db) -> Self {
        let gate = Self(Arc::new(Inner {
            own,
            db,
            sources: Mutex::default(),
            rules: ArcSwap::default(),
            changed: watch::Sender::new(()),
            told: Cache::builder()
                .max_capacity(TOLD_MAX)
                .time_to_live(QUIET)
                .build(),
            lines: Mutex::new(Lines {
                bucket: Bucket::new(LINES.1),
                left_out: 0,
            }),
        }));
        gate.configure(config);
        gate
    }

    /// Reads what administrators decided, and follows it from here on.
    pub async fn start(&self) -> Result<(), storage::Error> {
        // Subscribed first, so that no change falls between.
        let rows = self.0.db.stream.subscribe();
        self.load().await?;
        tokio::spawn(follow(self.clone(), rows));
        Ok(())
    }

    /// Takes the rules of a configuration that was read again.
    pub fn configure(&self, config: &config::Federation) {
        self.change(|sources| sources.configured = Arc::new(config.clone()));
    }

    /// Whether we have to do with that server; tells nobody.
    pub fn allows(&self, server: &ServerName) -> bool {
        server == self.0.own || self.0.rules.load().refusal(server, now_ms()).is_none()
    }

    /// Refuses a server that we have nothing to do with, and says so in the log.
    pub fn check(&self, server: &ServerName, way: Way) -> Result<(), Error> {
        if server == self.0.own {
            return Ok(());
        }
        let rules = self.0.rules.load();
        let Some(refusal) = rules.refusal(server, now_ms()) else {
            return Ok(());
        };
        self.tell(server, way, refusal);
        Err(Error::Refused(server.to_owned()))
    }

    /// Whether that host is denied: for addresses of media that are no servers.
    pub fn denies_host(&self, host: &str) -> bool {
        self.0.rules.load().denies_host(host, now_ms())
    }

    /// What refused servers in a room mean.
    pub fn unlisted_in_room(&self) -> UnlistedInRoom {
        self.0.rules.load().unlisted_in_room
    }

    /// Those of some servers that are refused, where that matters for a room that is to be joined.
    /// An error where nobody may join because of them.
    pub fn check_room<'a>(
        &self,
        servers: impl Iterator<Item = &'a ServerName>,
    ) -> Result<(), Error> {
        let choice = self.unlisted_in_room();
        if choice == UnlistedInRoom::Allow {
            return Ok(());
        }
        let mut first = None;
        for server in servers {
            if let Err(refused) = self.check(server, Way::Room) {
                first.get_or_insert(refused);
            }
        }
        match first {
            Some(Error::Refused(server)) if choice == UnlistedInRoom::Refuse => {
                Err(Error::RefusedInRoom(server))
            }
            _ => Ok(()),
        }
    }

    /// Tells when the rules have changed, by a hand or by the clock.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Whether there is a list of allowed servers, and the patterns in it that hold now.
    pub fn allowed(&self) -> (bool, Vec<String>) {
        let now = now_ms();
        let all = self.list().into_iter();
        let holding = all.filter(|entry| {
            let holds = entry.rule.until_ts.is_none_or(|until| until > now);
            entry.list == List::Allow && holds
        });
        let mut patterns: Vec<String> = holding.map(|entry| entry.rule.server).collect();
        patterns.sort_unstable();
        patterns.dedup();
        (self.0.rules.load().has_allowed(), patterns)
    }

    /// All entries: of the configuration, then of administrators.
    pub fn list(&self) -> Vec<Listed> {
        let sources = self.lock().clone();
        let of = |list, rules: &[ServerRule]| -> Vec<Listed> {
            let entry = |rule: &ServerRule| Listed {
                list,
                rule: rule.clone(),
                since_ts: None,
            };
            rules.iter().map(entry).collect()
        };
        let mut all = of(List::Deny, &sources.configured.deny);
        all.extend(of(List::Allow, &sources.configured.allow));
        all.extend(sources.stored.iter().cloned());
        all
    }

    /// Makes or changes an entry (by an administrator).
    pub async fn put(&self, list: List, rule: ServerRule, admin: UserNid) -> Result<(), Error> {
        let server = pattern(&rule.server)?;
        let too_long = |reason: &String| reason.chars().count() > REASON_MAX;
        if rule.reason.as_ref().is_some_and(too_long) {
            return Err(Error::Rule(format!(
                "reason: at most {REASON_MAX} characters"
            )));
        }
        let stored = self.lock().stored.clone();
        let globs = stored.iter().filter(|entry| is_glob(&entry.rule.server));
        if is_glob(&server) && globs.count() >= GLOBS_MAX / 2 {
            let why = "too many patterns with wildcards other than *. before a name";
            return Err(Error::Rule(why.to_owned()));
        }
        let row = Row {
            list: list.name().to_owned(),
            server,
            reason: rule.reason,
            until_ts: rule.until_ts,
            since_ts: now_ms(),
        };
        let mut tx = self.0.db.begin().await?;
        if !server_rules::upsert(&mut tx, &row, admin).await? {
            return Err(Error::Rule("there are too many entries".to_owned()));
        }
        tx.log(entry()).await?;
        tx.commit().await?;
        Ok(self.load().await?)
    }

    /// Removes an entry that an administrator made; `false`: there is none.
    pub async fn delete(&self, list: List, server: &str) -> Result<bool, Error> {
        let server = pattern(server)?;
        let mut tx = self.0.db.begin().await?;
        let found = server_rules::delete(&mut tx, list.name(), &server).await?;
        if found {
            tx.log(entry()).await?;
        }
        tx.commit().await?;
        self.load().await?;
        Ok(found)
    }

    async fn load(&self) -> Result<(), storage::Error> {
        let mut conn = self.0.db.conn().await?;
        let rows = server_rules::list(&mut conn).await?;
        drop(conn);
        let stored = rows.into_iter().filter_map(|row| {
            Some(Listed {
                list: List::of(&row.list)?,
                rule: ServerRule {
                    server: row.server,
                    reason: row.reason,
                    until_ts: row.until_ts,
                },
                since_ts: Some(row.since_ts),
            })
        });
        let stored = Arc::new(stored.collect());
        self.change(|sources| sources.stored = stored);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sources> {
        let sources = self.0.sources.lock();
        sources.unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Sources)) {
        // Under the lock, so that of two changes none is lost.
        let mut sources = self.lock();
        change(&mut sources);
        let of = |list| {
            let stored = sources.stored.iter();
            stored
                .filter(move |entry| entry.list == list)
                .map(|entry| &entry.rule)
        };
        let configured = &sources.configured;
        let rules = Rules::new(
            configured.allow.iter().chain(of(List::Allow)),
            configured.deny.iter().chain(of(List::Deny)),
            configured.unlisted_in_room,
        );
        self.0.rules.store(Arc::new(rules));
        drop(sources);
        self.0.changed.send_replace(());
    }

    /// A line in the log of what concerns security, as far as there are not too many.
    fn tell(&self, server: &ServerName, way: Way, refusal: Refusal<'_>) {
        let key = (way, server.as_str().to_owned());
        if self.0.told.contains_key(&key) {
            return;
        }
        let Some(left_out) = self.take_line() else {
            return;
        };
        self.0.told.insert(key, ());
        let reason = match refusal {
            Refusal::Denied(reason) => reason.unwrap_or("denied"),
            Refusal::NotAllowed => "not allowed",
        };
        let event = match way {
            Way::Inbound => "a request of a refused server",
            Way::Outbound => "a request to a refused server",
            Way::Event => "an event of a refused server",
            Way::Room => "a refused server in a room",
        };
        tracing::warn!(target: "amtsbote::security", %server, reason, left_out, "{event}");
    }

    /// How many lines were left out before this one; `None`: this one is left out as well.
    fn take_line(&self) -> Option<u64> {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.bucket.take(LINES).is_err() {
            lines.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut lines.left_out))
    }
}

fn pattern(text: &str) -> Result<String, Error> {
    server_pattern(text).ok_or_else(|| {
        Error::Rule("the server is no host or pattern of hosts; ports play no part".to_owned())
    })
}

fn entry() -> LogEntry {
    LogEntry {
        kind: LogKind::ServerRule,
        room: 0,
        user: 0,
        reference: 0,
    }
}

/// Follows what is changed on any node, and the ends of entries.
async fn follow(gate: Gate, mut rows: broadcast::Receiver<Arc<[LogRow]>>) {
    use broadcast::error::RecvError;
    loop {
        let now = now_ms();
        let end = gate.0.rules.load().next_end(now);
        let wait = end.map_or(LOOK_EVERY, |end| {
            Duration::from_millis((end - now).unsigned_abs()).min(LOOK_EVERY)
        });
        let changed = tokio::select! {
            batch = rows.recv() => match batch {
                Ok(batch) => batch.iter().any(|row| row.kind == LogKind::ServerRule),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(wait) => {
                gate.0.changed.send_replace(());
                false
            }
        };
        while changed && let Err(error) = gate.load().await {
            tracing::warn!(%error, "the rules about servers could not be read");
            tokio::time::sleep(RETRY).await;
        }
    }
}
