//! What a connection was told. A version of that never changes; the client names the one it has in
//! its `pos`, and the one before stays until it has named the next, so that an answer may be lost.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::{super::Error, request::Wanted};
use crate::{
    clock::now_ms,
    storage::{self, Db, Pos, RoomNid, sliding},
    users::tokens::Session,
};

/// Connections of a device; of more, those not used for longest are forgotten.
const CONNECTIONS_MAX: i64 = 20;
/// Rooms of connections in memory, all together.
const ROOMS_MAX: u64 = 1_000_000;
/// How long a connection that is not used stays in memory.
const MEMORY_LIFE: Duration = Duration::from_mins(30);

/// Where a client is: the version of what it was told, and up to where rooms were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) version: i64,
    pub(super) pos: Pos,
    /// Serial of typing.
    pub(super) typing: i64,
    /// Changes of devices up to this position were told; `None`: as the rest.
    pub(super) devices: Option<Pos>,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p1_{}_{}_{}", self.version, self.pos, self.typing)?;
        match self.devices {
            Some(devices) => write!(f, "_{devices}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text
            .strip_prefix("p1_")
            .ok_or(Error::UnknownPos)?
            .split('_');
        let numbers: Vec<i64> = parts
            .map(|part| part.parse().ok().filter(|number| *number >= 0))
            .collect::<Option<_>>()
            .ok_or(Error::UnknownPos)?;
        let (version, pos, typing, devices) = match numbers[..] {
            [version, pos, typing] => (version, pos, typing, None),
            [version, pos, typing, devices] => (version, pos, typing, Some(devices)),
            _ => return Err(Error::UnknownPos),
        };
        Ok(Self {
            version,
            pos,
            typing,
            devices,
        })
    }
}

/// What a connection was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Told {
    /// By room.
    pub(super) rooms: BTreeMap<i64, ToldRoom>,
    /// What was wanted of them.
    pub(super) wanted: Vec<Wanted>,
}

/// What was told of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct ToldRoom {
    /// Up to where; `None`: with the rest of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upto: Option<Pos>,
    /// Which of [`Told::wanted`].
    pub(super) wanted: usize,
    /// Only that the user is invited, or knocked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) outside: bool,
}

impl Told {
    /// The number of something that is wanted.
    pub(super) fn intern(&mut self, wanted: Wanted) -> usize {
        if let Some(at) = self.wanted.iter().position(|known| *known == wanted) {
            return at;
        }
        self.wanted.push(wanted);
        self.wanted.len() - 1
    }

    /// Forgets what is wanted of no room any more.
    pub(super) fn tidy(&mut self) {
        let mut numbers = BTreeMap::new();
        for room in self.rooms.values_mut() {
            let next = numbers.len();
            room.wanted = *numbers.entry(room.wanted).or_insert(next);
        }
        let mut kept = vec![Wanted::default(); numbers.len()];
        for (old, new) in numbers {
            kept[new] = std::mem::take(&mut self.wanted[old]);
        }
        self.wanted = kept;
    }
}

/// User, device, name of the connection, version.
type Key = (i64, i32, String, i64);

/// Connections in memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections(Cache<Key, Arc<Told>>);

impl Default for Connections {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(ROOMS_MAX)
                .weigher(|_, told: &Arc<Told>| {
                    u32::try_from(10 + told.rooms.len()).unwrap_or(u32::MAX)
                })
                .time_to_idle(MEMORY_LIFE)
                .build(),
        )
    }
}

impl Connections {
    fn key(session: &Session, name: &str, version: i64) -> Key {
        let (user, device) = (session.user_nid.0, session.device_no);
        (user, device, name.to_owned(), version)
    }

    /// What a client was told that names this version.
    pub(super) async fn load(
        &self,
        db: &Db,
        session: &Session,
        (name, version): (&str, i64),
    ) -> Result<Arc<Told>, Error> {
        let key = Self::key(session, name, version);
        if let Some(told) = self.0.get(&key) {
            return Ok(told);
        }
        let mut conn = db.conn().await?;
        let of = (session.user_nid, session.device_no, name);
        let json = sliding::find(&mut conn, of, version, now_ms()).await?;
        drop(conn);
        let json = json.ok_or(Error::UnknownPos)?;
        let told: Told =
            serde_json::from_str(&json).map_err(|error| storage::Error::Inconsistent {
                table: "sliding_connection",
                what: error.to_string(),
            })?;
        let told = Arc::new(told);
        self.0.insert(key, told.clone());
        Ok(told)
    }

    /// Writes what a client will have been told once it has the answer; the version.
    pub(super) async fn store(
        &self,
        db: &Db,
        session: &Session,
        (name, base): (&str, Option<i64>),
        told: Told,
    ) -> Result<i64, Error> {
        let version = rand::random_range(1..i64::MAX);
        // Numbers and strings always serialize.
        let json = serde_json::to_string(&told).unwrap_or_default();
        let mut conn = db.conn().await?;
        sliding::insert(
            &mut conn,
            (session.user_nid, session.device_no, name),
            (base, version),
            (&json, now_ms()),
            CONNECTIONS_MAX,
        )
        .await?;
        drop(conn);
        self.0
            .insert(Self::key(session, name, version), Arc::new(told));
        Ok(version)
    }
}

/// Whether a room was told, and up to where.
pub(super) fn since(told: &Told, room: RoomNid, live: Pos) -> Option<(Pos, ToldRoom)> {
    let room = told.rooms.get(&room.0)?;
    Some((room.upto.unwrap_or(live), *room))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Token, Told, ToldRoom, Wanted};

    proptest! {
        #[test]
        fn tokens_round_trip(
            version in 0..i64::MAX, pos in 0..i64::MAX, typing in 0..i64::MAX,
            devices in proptest::option::of(0..i64::MAX),
        ) {
            let token = Token { version, pos, typing, devices };
            prop_assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        }

        #[test]
        fn nonsense_is_refused_without_panic(text in "(p1_)?[0-9_-]{0,40}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert!(token.pos >= 0);
            }
        }
    }

    #[test]
    fn what_is_wanted_of_no_room_is_forgotten() {
        let mut told = Told::default();
        let of = |timeline_limit| Wanted {
            timeline_limit,
            ..Wanted::default()
        };
        for (room, limit) in [(1, 5), (2, 7), (3, 5), (4, 9)] {
            let wanted = told.intern(of(limit));
            let told_room = ToldRoom {
                upto: None,
                wanted,
                outside: false,
            };
            told.rooms.insert(room, told_room);
        }
        told.rooms.remove(&1);
        told.rooms.remove(&3);
        told.tidy();
        assert_eq!(told.wanted, [of(7), of(9)]);
        assert_eq!(told.wanted[told.rooms[&4].wanted], of(9));
    }
}
