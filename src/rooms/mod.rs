//! The event graph: rooms, their events and their state.

pub mod aliases;
pub mod at_time;
pub mod auth_graph;
pub mod backfill;
pub mod blocks;
pub mod create;
pub mod delayed;
pub mod deletion;
pub mod directory;
pub mod feed;
pub mod guests;
pub mod inbox;
pub mod listing;
pub mod membership;
pub mod mutual;
pub mod notifications;
pub mod notify;
pub mod partial;
pub mod place;
pub mod presence;
pub mod purge;
pub mod push;
pub mod ready;
pub mod receipts;
pub mod receive;
pub mod relations;
pub mod remote;
pub mod render;
pub mod reports;
pub mod resident;
pub mod resolve;
pub mod search;
pub mod send;
pub mod serve;
pub mod server_notices;
pub mod shown_media;
pub mod spaces;
pub mod state;
pub mod sticky;
pub mod timeline;
pub mod transaction;
pub mod typing;
pub mod upgrade;
pub mod user_directory;
pub mod visibility;

mod before;
mod catch_up;
mod doors;
mod encryption;
mod ends;
mod erasure;
mod loading;
mod locks;
mod missing;
mod moments;
mod older;
mod once;
pub mod open_history;
mod outliers;
mod pdus;
mod persist;
mod policy_server;
mod references;
mod rescind;
mod states;
mod succession;
pub mod unredacted;
mod writer;

use std::sync::{Arc, Mutex};

use moka::{future::Cache as AsyncCache, policy::EvictionPolicy, sync::Cache};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, api::federation::transactions::edu::Edu, serde::Raw,
};
use tokio::sync::{Notify, broadcast};

pub use self::pdus::{Event, StateSlice};
use self::{resident::Room, state::State, typing::Typing, writer::Writers};
use crate::{
    context::Context,
    event::{self, pdu::Pdu},
    storage::{self, RoomNid},
    users::erased::Erased,
};

/// Rooms in memory; a large room weighs more than one.
const RESIDENT_WEIGHT_MAX: u64 = 20_000;
/// Bytes of parsed events in memory.
const PDU_BYTES_MAX: u64 = 48 << 20;
/// Transaction ids that are remembered for the echo of events to their sender.
const ECHOES_MAX: u64 = 50_000;
/// How long.
const ECHO_LIFE: std::time::Duration = std::time::Duration::from_mins(30);
/// News for peers that wait to be picked up.
const NEWS_MAX: usize = 4_096;
/// States of old snapshots in memory.
const STATES_MAX: u64 = 2_000;
/// Small facts about rooms in memory, of each kind.
const SMALL_MAX: u64 = 20_000;
/// How often a change is built anew when others change the room at the same time.
const ATTEMPTS_MAX: usize = 8;
/// `room_seq` of the first event of a room: leaves room below for what is backfilled.
const FIRST_SEQ: i64 = 1 << 40;

/// Why something about a room was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// We do not hold that room.
    #[error("room {0} is not known here")]
    RoomNotFound(OwnedRoomId),
    /// No such event, or the user may not know of it.
    #[error("event not found")]
    EventNotFound,
    /// What a redacted event said is not kept, or not any more (MSC2815): it is for so many milliseconds.
    #[error("what the event said is gone")]
    UnredactedGone(i64),
    /// No such state.
    #[error("state not found")]
    StateNotFound,
    /// The user is not in the room and has to be.
    #[error("{user_id} is not in room {room_id}")]
    NotJoined {
        /// Who.
        user_id: OwnedUserId,
        /// Where.
        room_id: OwnedRoomId,
    },
    /// Who is in a room cannot forget it.
    #[error("{0} is still in the room")]
    StillThere(OwnedUserId),
    /// The authorization rules, or a rule of ours, forbid it.
    #[error("{0}")]
    Forbidden(String),
    /// An invitation to what the server tells its users cannot be refused.
    #[error(
        "this is where the server tells you what you need to know; you can leave once you have joined"
    )]
    Notices,
    /// No such user here.
    #[error("user {0} is not known here")]
    UserNotFound(OwnedUserId),
    /// The user wants no invitations by that one.
    #[error("{0} does not take this invitation")]
    InviteBlocked(OwnedUserId),
    /// The room has to do with servers that we have nothing to do with.
    #[error("{0}")]
    RefusedServers(String),
    /// The administrator has not switched it on.
    #[error("this is switched off")]
    SwitchedOff,
    /// The event for which a client subscribes to a thread is not in it (MSC4306).
    #[error("the event is not in the thread")]
    NotInThread,
    /// The user ended the subscription after what would be the reason for another one (MSC4306).
    #[error("the subscription was ended after that")]
    Unsubscribed,
    /// An event is to be sent later than this server allows (MSC4140).
    #[error("events are sent at most {0} ms later")]
    DelayTooLong(i64),
    /// The user has too many events sent later.
    #[error("too many delayed events wait already")]
    TooManyDelayed,
    /// No such delayed event.
    #[error("no such delayed event")]
    DelayedNotFound,
    /// The delayed event was sent or cancelled.
    #[error("the delayed event was sent or cancelled already")]
    DelayedOver,
    /// What the client sent cannot be an event or a change of a room.
    #[error("{0}")]
    Invalid(String),
    /// A parameter that cannot be what it is.
    #[error("{0}")]
    InvalidParam(String),
    /// The peer takes part in no rooms of this version.
    #[error("the room is of version {0}, which your server does not name")]
    IncompatibleVersion(String),
    /// None of us can vouch for a restricted join.
    #[error("this server cannot authorise the join")]
    UnableToAuthorise,
    /// The user has annotated the event so already.
    #[error("you have sent this annotation of the event already")]
    DuplicateAnnotation,
    /// A thread begins at an event that relates to none.
    #[error("a thread cannot begin at an event that relates to another")]
    NoThreadThere,
    /// The event would be larger than the specification allows.
    #[error("event too large: {0}")]
    TooLarge(String),
    /// No room version of that name here.
    #[error("room version {0} is not supported")]
    UnsupportedVersion(String),
    /// The alias is taken.
    #[error("alias {0} is in use")]
    AliasTaken(String),
    /// The alias is one that an application service has, or it is none of this one's.
    #[error("the alias is reserved for an application service, or not reserved for this one")]
    AliasClaimed,
    /// The alias does not exist.
    #[error("alias not found")]
    AliasNotFound,
    /// Others changed the room at the same time, again and again.
    #[error("room is busy")]
    Busy,
    /// The policy server of the room refuses the event; its answer is passed on as it is.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Matrix error code.
        errcode: String,
        /// What it says.
        message: String,
    },
    /// A peer sent an event and does not tell what came before it.
    #[error("your server does not tell the prev_events of the event")]
    Withheld,
    /// A peer did not do its part.
    #[error("remote: {0}")]
    Remote(String),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The members of the room are still being fetched.
    #[error("the members of room {0} are still being fetched")]
    Incomplete(OwnedRoomId),
    /// The writer could not write.
    #[error("not written: {0}")]
    NotWritten(String),
}

impl From<event::Error> for Error {
    fn from(error: event::Error) -> Self {
        match error {
            event::Error::TooLarge(what) => Self::TooLarge(what),
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// Handle to all rooms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ctx: Context,
    erased: Arc<Erased>,
    resident: AsyncCache<RoomNid, Arc<Room>>,
    /// Newest position of a change of rooms that changed lately, on whatever node.
    changed: Cache<RoomNid, i64>,
    pdus: Cache<i64, Arc<Pdu>>,
    states: Cache<i64, State>,
    snaps: Cache<i64, Arc<storage::state::Snap>>,
    graphs: Cache<RoomNid, resolve::Graph>,
    resolutions: Cache<resolve::Question, state::Entries>,
    /// For work that would keep a thread from serving requests.
    workers: Arc<tokio::sync::Semaphore>,
    /// Holes (by the event above) that no peer could fill just now.
    unfilled: Cache<i64, ()>,
    /// By history visibility event: whether history was open up to it (see [`visibility`]).
    open: Cache<i64, bool>,
    rules: notify::Known,
    nids: Mutex<std::ops::Range<i64>>,
    writers: Writers,
    underway: once::Underway,
    partial: partial::Completing,
    inbox: inbox::Inbox,
    locks: locks::Locks,
    doors: doors::Doors,
    /// Wakes the job that frees rooms.
    purging: Notify,
    /// Wakes the job that does what administrators order.
    deleting: Notify,
    typing: Typing,
    presence: presence::Presences,
    directory: user_directory::Progress,
    /// What application services are to hear.
    feed: feed::Feed,
    /// What push gateways are to hear.
    push: push::Push,
    /// What users want sent later.
    delayed: delayed::Waiting,
    /// What peers told of their spaces.
    peers: spaces::Peers,
    /// Who sent an event under which transaction id, for the echo to the same device.
    echoes: Cache<OwnedEventId, Echo>,
    /// Small losable news for peers: (room, what it replaces, EDU).
    news: broadcast::Sender<News>,
}

/// User, device number, transaction id.
type Echo = (storage::UserNid, i32, Arc<str>);

/// Small losable news of a room for peers.
#[derive(Clone, Debug)]
pub struct News {
    /// Room.
    pub room: RoomNid,
    /// What it is about: newer news of the same takes its place.
    pub about: String,
    /// The news.
    pub edu: Raw<Edu>,
}

impl Rooms {
    /// Starts the writers.
    pub fn start(ctx: Context, erased: Arc<Erased>) -> Self {
        let writers = Writers::start(&ctx.db);
        let rooms = Self(Arc::new(Inner {
            // The least recently used goes, because what was just made is needed at once; moka's
            // other policy would rather not take in what was never asked for before.
            resident: AsyncCache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(RESIDENT_WEIGHT_MAX)
                .weigher(|_, room: &Arc<Room>| {
                    u32::try_from(1 + room.head().state.entries.len() / 100).unwrap_or(u32::MAX)
                })
                .build(),
            changed: Cache::builder()
                .max_capacity(SMALL_MAX)
                .time_to_live(loading::LOAD_MAX)
                .build(),
            pdus: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(PDU_BYTES_MAX)
                .weigher(|_, pdu: &Arc<Pdu>| {
                    u32::try_from(pdu.json.len() * 2 + 400).unwrap_or(u32::MAX)
                })
                .build(),
            states: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(STATES_MAX)
                .build(),
            snaps: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(states::SNAP_BYTES_MAX)
                .weigher(|_, snap: &Arc<storage::state::Snap>| states::weight(snap))
                .build(),
            graphs: Cache::builder()
                .max_capacity(resolve::GRAPH_BYTES_MAX)
                .weigher(|_, graph: &resolve::Graph| graph.weight())
                .build(),
            resolutions: Cache::builder()
                .max_capacity(resolve::RESOLUTIONS_WEIGHT_MAX)
                .weigher(|_, entries: &state::Entries| resolve::weight(entries))
                .build(),
            workers: resolve::workers(),
            unfilled: Cache::builder()
                .max_capacity(SMALL_MAX)
                .time_to_live(backfill::PAUSE)
                .build(),
            open: Cache::new(SMALL_MAX),
            rules: notify::known(),
            nids: Mutex::new(0..0),
            writers,
            underway: once::Underway::default(),
            partial: partial::Completing::default(),
            inbox: inbox::Inbox::default(),
            locks: locks::Locks::default(),
            doors: doors::Doors::default(),
            purging: Notify::new(),
            deleting: Notify::new(),
            typing: Typing::default(),
            presence: presence::Presences::default(),
            directory: user_directory::Progress::default(),
            feed: feed::Feed::new(&ctx.appservices),
            push: push::Push::new(),
            delayed: delayed::Waiting::default(),
            peers: spaces::Peers::default(),
            echoes: Cache::builder()
                .max_capacity(ECHOES_MAX)
                .time_to_live(ECHO_LIFE)
                .build(),
            news: broadcast::Sender::new(NEWS_MAX),
            erased,
            ctx,
        }));
        tokio::spawn(loading::forget_stale(rooms.clone()));
        rooms
    }

    /// News for peers, for whoever sends them.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.0.news.subscribe()
    }

    /// The transaction id under which a device sent an event, if it was this one.
    pub fn echo(
        &self,
        event_id: &OwnedEventId,
        user: storage::UserNid,
        device: i32,
    ) -> Option<Arc<str>> {
        let (sender, sent_by, txn_id) = self.0.echoes.get(event_id)?;
        (sender == user && sent_by == device).then_some(txn_id)
    }

    /// Remembers the transaction id of an event for [`Rooms::echo`].
    pub fn remember_echo(
        &self,
        event_id: &OwnedEventId,
        (user, device): (storage::UserNid, i32),
        txn_id: &str,
    ) {
        self.0
            .echoes
            .insert(event_id.clone(), (user, device, txn_id.into()));
    }

    /// Stored events of a room, parsed.
    pub fn parse(
        &self,
        room: &Room,
        stored: Vec<storage::events::Stored>,
    ) -> Result<Vec<Event>, Error> {
        stored
            .into_iter()
            .map(|stored| Event::parse(&room.version, stored))
            .collect()
    }

    fn tell_peers(&self, room: RoomNid, about: String, edu: Raw<Edu>) {
        // Nobody sending is fine.
        let _ = self.0.news.send(News { room, about, edu });
    }

    /// Infrastructure.
    pub fn ctx(&self) -> &Context {
        &self.0.ctx
    }
}

/// Content of a type of ours as raw JSON.
fn raw(value: &serde_json::Value) -> Result<Box<serde_json::value::RawValue>, Error> {
    serde_json::value::to_raw_value(value).map_err(|error| Error::Invalid(error.to_string()))
}
