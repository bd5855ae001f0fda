//! What the log last said of each room and user, in memory: who asks what is new since a position need
//! not ask the database where nothing was logged.
//!
//! A row is noted when this process hears of it, which is before the horizon passes its position. So
//! whoever takes the horizon first and asks here afterwards learns of everything up to it, whichever
//! node has written it. Something that is above the horizon yet may be among it: then the database is
//! asked for nothing, which is slow and not wrong. Of positions up to the floor nothing is known (it
//! was before this process, or was let go of), and whoever asks from below it is told to look.

use std::collections::HashMap;

use super::{
    log::{LogKind, LogRow},
    numbers::RoomNid,
    stream::Pos,
};

/// Rooms and users in one of the two generations; the older one goes when the younger one is full. Both
/// take about 40 MB then.
const ENTRIES_MAX: usize = 250_000;

/// What a row of the log is about.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Topic {
    /// Of a room: its events, and that its state is whole.
    Events,
    /// Of a room: receipts.
    Receipts,
    /// Of a user: memberships, and what the user wrote.
    Rooms,
    /// Of a user: account data and push rules, in rooms and apart from them.
    Account,
    /// Of a user: messages to devices.
    Messages,
    /// Of a user: keys of devices that wait to be claimed.
    Keys,
    /// Of a user: signatures that nobody else sees.
    Signatures,
    /// Of a user: subscriptions to threads.
    Threads,
    /// Of all users together: devices and their keys.
    Devices,
    /// Of all users together: profiles.
    Profiles,
}

/// Last positions.
#[derive(Debug)]
pub struct Recent {
    floor: Pos,
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    last: HashMap<(Topic, i64), Pos>,
    /// The highest of all.
    newest: Pos,
}

impl Generation {
    fn note(&mut self, topic: Topic, of: i64, pos: Pos) {
        let last = self.last.entry((topic, of)).or_default();
        *last = pos.max(*last);
        self.newest = pos.max(self.newest);
    }

    fn has_since(&self, key: &(Topic, i64), since: Pos) -> bool {
        self.newest > since && self.last.get(key).is_some_and(|last| *last > since)
    }
}

impl Recent {
    pub(super) fn new(floor: Pos) -> Self {
        Self {
            floor,
            young: Generation::default(),
            old: Generation::default(),
        }
    }

    /// Whether something may have been logged after a position. `of`: number of the room or user; 0
    /// where a topic is of all together.
    pub fn has_since(&self, topic: Topic, of: i64, since: Pos) -> bool {
        let key = (topic, of);
        since < self.floor || self.young.has_since(&key, since) || self.old.has_since(&key, since)
    }

    /// Of rooms, each with a position after which it is asked for (0: for all there is), those that have
    /// to be looked at.
    pub fn with_news(&self, topic: Topic, rooms: &[(RoomNid, Pos)]) -> Vec<(RoomNid, Pos)> {
        let rooms = rooms.iter().copied();
        rooms
            .filter(|(room, since)| *since == 0 || self.has_since(topic, room.0, *since))
            .collect()
    }

    pub(super) fn note(&mut self, row: &LogRow) {
        self.note_up_to(row, ENTRIES_MAX);
    }

    fn note_up_to(&mut self, row: &LogRow, most: usize) {
        if self.young.last.len() >= most {
            self.old = std::mem::take(&mut self.young);
            self.floor = self.floor.max(self.old.newest);
        }
        for (topic, of) in topics(row).into_iter().flatten() {
            self.young.note(topic, of, row.pos);
        }
    }

    /// Rows up to a position may have been missed.
    pub(super) fn lose(&mut self, upto: Pos) {
        self.floor = self.floor.max(upto);
    }
}

fn topics(row: &LogRow) -> [Option<(Topic, i64)>; 2] {
    let of_room = |topic| Some((topic, row.room));
    let of_user = |topic| Some((topic, row.user));
    match row.kind {
        LogKind::Event => [of_room(Topic::Events), of_user(Topic::Rooms)],
        LogKind::Whole => [of_room(Topic::Events), None],
        LogKind::Receipt => [of_room(Topic::Receipts), None],
        LogKind::OutOfBand | LogKind::Standing => [of_user(Topic::Rooms), None],
        LogKind::AccountData | LogKind::PushRules => [of_user(Topic::Account), None],
        LogKind::ToDevice => [of_user(Topic::Messages), None],
        LogKind::KeyCounts => [of_user(Topic::Keys), None],
        // The keys of a device that has gone have gone with it.
        LogKind::DeviceList => [Some((Topic::Devices, 0)), of_user(Topic::Keys)],
        LogKind::Signatures => [of_user(Topic::Signatures), None],
        LogKind::Profile => [Some((Topic::Profiles, 0)), None],
        LogKind::ThreadSubscription => [of_user(Topic::Threads), None],
        LogKind::Invalidate
        | LogKind::Owed
        | LogKind::ServerRule
        | LogKind::Presence
        | LogKind::PeerAlive
        | LogKind::Erased => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::{LogKind, LogRow, Recent, Topic};

    fn row(pos: i64, kind: LogKind, room: i64, user: i64) -> LogRow {
        LogRow {
            pos,
            kind,
            room,
            user,
            reference: 0,
        }
    }

    #[test]
    fn what_was_logged_is_known_and_what_was_before_is_not() {
        let mut recent = Recent::new(10);
        assert!(recent.has_since(Topic::Events, 1, 9), "below the floor");
        assert!(!recent.has_since(Topic::Events, 1, 10));
        recent.note(&row(12, LogKind::Event, 1, 7));
        recent.note(&row(11, LogKind::Event, 1, 8));
        assert!(recent.has_since(Topic::Events, 1, 11));
        assert!(!recent.has_since(Topic::Events, 1, 12));
        assert!(recent.has_since(Topic::Rooms, 8, 10));
        assert!(!recent.has_since(Topic::Rooms, 8, 11));
        assert!(!recent.has_since(Topic::Events, 2, 10));
        assert!(!recent.has_since(Topic::Receipts, 1, 10));
        recent.lose(20);
        assert!(recent.has_since(Topic::Receipts, 1, 19));
        assert!(!recent.has_since(Topic::Receipts, 1, 20));
    }

    #[test]
    fn what_is_let_go_of_counts_as_unknown() {
        let mut recent = Recent::new(0);
        for pos in 1..=100 {
            recent.note_up_to(&row(pos, LogKind::Receipt, pos, 1), 10);
            for since in 0..=pos {
                for room in 1..=pos {
                    let has = recent.has_since(Topic::Receipts, room, since);
                    assert!(has || room <= since, "{room} since {since} at {pos}");
                }
            }
        }
        let kept = recent.young.last.len() + recent.old.last.len();
        assert!(kept <= 20, "{kept} are kept");
        assert!(!recent.has_since(Topic::Receipts, 100, 100));
    }
}
