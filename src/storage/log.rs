//! Rows of the log: what changed, and of whom.

use super::Pos;

/// What a log row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum LogKind {
    /// A timeline event; `reference` is its nid.
    Event = 1,
    /// Receipts of a room.
    Receipt = 2,
    /// Account data of a user.
    AccountData = 3,
    /// To-device messages of a user; `reference` is the device number.
    ToDevice = 4,
    /// A user's devices or keys.
    DeviceList = 5,
    /// A user's profile.
    Profile = 6,
    /// Push rules of a user, or whom the user ignores.
    PushRules = 7,
    /// One-time key counts.
    KeyCounts = 8,
    /// Signatures of a user on keys of others, which only that user sees.
    Signatures = 9,
    /// Caches of other nodes (tokens, accounts).
    Invalidate = 10,
    /// Membership of a local user in a room that we do not hold (invite, knock, their end).
    OutOfBand = 11,
    /// The state of a room that was joined without its members is whole.
    Whole = 12,
    /// A user's subscription to a thread.
    ThreadSubscription = 13,
    /// An event that some peers are owed once more; `reference` is its nid.
    Owed = 14,
    /// What a local user has to do with a room changed, and no event of the log says so: the room was
    /// forgotten, or states were resolved.
    Standing = 15,
    /// Which servers are allowed or denied.
    ServerRule = 21,
    /// Presence of a user.
    Presence = 22,
    /// A peer that failed lives; `reference` is its number.
    PeerAlive = 23,
    /// A user was erased, or is back.
    Erased = 24,
}

impl LogKind {
    pub(super) fn of(kind: i16) -> Option<Self> {
        Some(match kind {
            1 => Self::Event,
            2 => Self::Receipt,
            3 => Self::AccountData,
            4 => Self::ToDevice,
            5 => Self::DeviceList,
            6 => Self::Profile,
            7 => Self::PushRules,
            8 => Self::KeyCounts,
            9 => Self::Signatures,
            10 => Self::Invalidate,
            11 => Self::OutOfBand,
            12 => Self::Whole,
            13 => Self::ThreadSubscription,
            14 => Self::Owed,
            15 => Self::Standing,
            21 => Self::ServerRule,
            22 => Self::Presence,
            23 => Self::PeerAlive,
            24 => Self::Erased,
            _ => return None,
        })
    }
}

/// A log row before it has a position. Nids are 0 where they do not apply.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry {
    /// What changed.
    pub kind: LogKind,
    /// Room nid.
    pub room: i64,
    /// User nid.
    pub user: i64,
    /// By kind.
    pub reference: i64,
}

impl LogEntry {
    /// The row at that position.
    pub fn at(self, pos: Pos) -> LogRow {
        LogRow {
            pos,
            kind: self.kind,
            room: self.room,
            user: self.user,
            reference: self.reference,
        }
    }
}

/// A committed row of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogRow {
    /// Position.
    pub pos: Pos,
    /// What changed.
    pub kind: LogKind,
    /// Room nid or 0.
    pub room: i64,
    /// User nid or 0.
    pub user: i64,
    /// By kind.
    pub reference: i64,
}
