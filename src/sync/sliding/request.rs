//! What a client asks for. Read leniently: what we do not know is ignored.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use super::super::Error;

/// Lists, and rooms that are subscribed to, in one request.
const LISTS_MAX: usize = 100;
const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Ranges of a list, and kinds of state that it asks for.
const RANGES_MAX: usize = 100;
const REQUIRED_MAX: usize = 100;
/// Events of a timeline.
const TIMELINE_MAX: u32 = 100;
/// Bytes of a name of a connection or list.
const NAME_BYTES_MAX: usize = 255;

/// The body of a request.
#[derive(Debug, Default, Deserialize)]
pub struct Body {
    /// Tells connections of a device apart.
    #[serde(default)]
    pub conn_id: String,
    /// Lists by name.
    #[serde(default)]
    pub lists: BTreeMap<String, List>,
    /// Rooms that are looked at whatever place they have.
    #[serde(default)]
    pub room_subscriptions: BTreeMap<OwnedRoomId, Wanted>,
    /// What else.
    #[serde(default)]
    pub extensions: Extensions,
}

/// A list of rooms, newest first.
#[derive(Debug, Deserialize)]
pub struct List {
    /// Places from and to, both inclusive.
    #[serde(default)]
    pub ranges: Vec<(u64, u64)>,
    /// What is wanted of each room.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// Which rooms.
    #[serde(default)]
    pub filters: Option<Filters>,
}

/// What is wanted of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Wanted {
    /// Events of the timeline.
    pub timeline_limit: u32,
    /// Types and keys of state; `*` stands for all, `$ME` and `$LAZY` for members.
    #[serde(default)]
    pub required_state: BTreeSet<(String, String)>,
}

impl Wanted {
    /// Wants also what another wants; whether that is more.
    pub(super) fn include(&mut self, other: &Self) -> bool {
        let before = (self.timeline_limit, self.required_state.len());
        self.timeline_limit = self.timeline_limit.max(other.timeline_limit);
        self.required_state
            .extend(other.required_state.iter().cloned());
        before != (self.timeline_limit, self.required_state.len())
    }
}

/// Which rooms are in a list: all that is said must hold.
#[derive(Debug, Default, Deserialize)]
pub struct Filters {
    /// Direct chats by `m.direct`.
    pub is_dm: Option<bool>,
    /// Children of these spaces.
    pub spaces: Option<BTreeSet<OwnedRoomId>>,
    /// Encrypted rooms.
    pub is_encrypted: Option<bool>,
    /// Invitations.
    pub is_invite: Option<bool>,
    /// Types of rooms, `null` for rooms without.
    pub room_types: Option<Vec<Option<String>>>,
    /// Types that are left out.
    pub not_room_types: Option<Vec<Option<String>>>,
    /// Rooms with one of these tags.
    pub tags: Option<BTreeSet<String>>,
    /// Rooms with none of these.
    pub not_tags: Option<BTreeSet<String>>,
}

/// What else is wanted.
#[derive(Debug, Default, Deserialize)]
pub struct Extensions {
    /// Messages to the device.
    #[serde(default)]
    pub to_device: ToDevice,
    /// Changed devices and key counts.
    #[serde(default)]
    pub e2ee: OfRooms,
    /// Account data.
    #[serde(default)]
    pub account_data: OfRooms,
    /// Receipts.
    #[serde(default)]
    pub receipts: OfRooms,
    /// Who is typing.
    #[serde(default)]
    pub typing: OfRooms,
    /// Subscriptions to threads (MSC4308).
    #[serde(default, rename = "io.element.msc4308.thread_subscriptions")]
    pub threads: Threads,
    /// Sticky events (MSC4480).
    #[serde(default, rename = "org.matrix.msc4354.sticky_events")]
    pub sticky: ToDevice,
    /// Profiles of who is in the rooms (MSC4262).
    #[serde(default, rename = "org.matrix.msc4262.profiles")]
    pub profiles: Profiles,
}

/// Messages to the device, or what else is told piece by piece.
#[derive(Debug, Default, Deserialize)]
pub struct ToDevice {
    /// Whether they are wanted.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Up to where the client has them.
    pub since: Option<String>,
    /// How many.
    pub limit: Option<u32>,
}

/// Subscriptions to threads.
#[derive(Debug, Default, Deserialize)]
pub struct Threads {
    /// Whether they are wanted.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// How many.
    pub limit: Option<u32>,
}

/// Profiles of others.
#[derive(Debug, Default, Deserialize)]
pub struct Profiles {
    /// For which rooms.
    #[serde(flatten)]
    pub of: OfRooms,
    /// Which fields; `None`: all.
    pub fields: Option<Vec<String>>,
}

/// An extension that may be for some rooms only.
#[derive(Debug, Default, Deserialize)]
pub struct OfRooms {
    /// Whether it is wanted.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// For rooms of these lists; `*`: all, as without it.
    pub lists: Option<Vec<String>>,
    /// For these of the subscribed rooms; `*`: all, as without it.
    pub rooms: Option<Vec<String>>,
}

impl OfRooms {
    /// Whether it is wanted.
    pub(super) fn is_on(&self) -> bool {
        self.enabled == Some(true)
    }

    /// Whether it is wanted for a room that is in some lists, or subscribed to.
    pub(super) fn covers(&self, room: &RoomId, lists: &[&str], subscribed: bool) -> bool {
        let names = |names: &Option<Vec<String>>, fits: &dyn Fn(&str) -> bool| match names {
            None => true,
            Some(names) => names.iter().any(|name| name == "*" || fits(name)),
        };
        (!lists.is_empty() && names(&self.lists, &|name| lists.contains(&name)))
            || (subscribed && names(&self.rooms, &|name| name == room))
    }
}

impl Body {
    /// Whether it looks at no room: extensions are all that it is for.
    pub(super) fn is_bare(&self) -> bool {
        self.lists.is_empty() && self.room_subscriptions.is_empty()
    }

    /// Refuses what is too much, and cuts timelines to what we give.
    pub fn check(&mut self) -> Result<(), Error> {
        let bad = |what: &str| Err(Error::BadRequest(what.to_owned()));
        if self.conn_id.len() > NAME_BYTES_MAX {
            return bad("conn_id is too long");
        }
        if self.lists.len() > LISTS_MAX || self.room_subscriptions.len() > SUBSCRIPTIONS_MAX {
            return bad("too many lists or subscriptions");
        }
        let fields = self.extensions.profiles.fields.as_ref();
        if fields.is_some_and(|fields| fields.len() > REQUIRED_MAX) {
            return bad("too many fields of profiles");
        }
        for (name, list) in &self.lists {
            if name.len() > NAME_BYTES_MAX || list.ranges.len() > RANGES_MAX {
                return bad("a list has too many ranges, or too long a name");
            }
            if list.ranges.iter().any(|(from, to)| from > to) {
                return bad("a range ends before it begins");
            }
        }
        let of_lists = self.lists.values_mut().map(|list| &mut list.wanted);
        for wanted in of_lists.chain(self.room_subscriptions.values_mut()) {
            if wanted.required_state.len() > REQUIRED_MAX {
                return bad("too many kinds of required_state");
            }
            wanted.timeline_limit = wanted.timeline_limit.min(TIMELINE_MAX);
        }
        Ok(())
    }
}
