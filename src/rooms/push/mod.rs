//! What users are told through push gateways: it follows the log in the background, queues for each
//! pusher what its user is notified of (`heard`), and sends it (`delivery`), one notice after the
//! other.
//!
//! Users fall into shares, and each node does this for some of them (`storage::shares`). How far the
//! log was read stands with the share, in the transaction that queues: what a crash cuts off is done
//! again. Whom an event notifies is decided when it happens; whether it is still worth a notice, when
//! that is sent. A notice may go out twice where a node dies between the answer of the gateway and
//! the note of it: apps know events by their ids.

mod delivery;
mod heard;
mod mails;
mod notice;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, broadcast::error::RecvError};

use super::{Error, Rooms};
use crate::{
    clock::now_ms,
    storage::{
        self, LogKind, Pos, RoomNid, news,
        push_queue::{self, Listener, Queued},
        shares::{self, Shares},
    },
};

/// Class of the lock that each living node has, and of the locks of the shares.
const NODES: i32 = 7_021_998;
const SHARES: i32 = 7_021_999;
/// How often the log, and what is due, is looked at when nobody gave a hint.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What nobody could be told for so long is told no more.
pub const KEEP_MS: i64 = 24 * 3_600_000;

/// How long it is remembered that a mail told of a room: longer than any pause.
pub const MAIL_KEEP_MS: i64 = 62 * 24 * 3_600_000;

/// What a node knows of the pushers of its shares.
#[derive(Debug)]
pub(super) struct Push {
    shares: Shares,
    /// Up to where the log was read, by share.
    seen: Mutex<BTreeMap<i16, Pos>>,
    /// Something may be due.
    wake: Notify,
    /// Shares came.
    gained: Notify,
    /// Pushers under way, with their gateways.
    active: Mutex<HashMap<i64, String>>,
    /// Pushers that mail under way.
    mailing: Mutex<HashSet<i64>>,
}

impl Push {
    pub(super) fn new() -> Self {
        Self {
            shares: Shares::new("push", NODES, SHARES),
            seen: Mutex::default(),
            wake: Notify::new(),
            gained: Notify::new(),
            active: Mutex::default(),
            mailing: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<i16, Pos>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> MutexGuard<'_, HashMap<i64, String>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mailing(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.mailing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of the shares of this node.
    fn shares(&self) -> Vec<i16> {
        numbers(self.shares.bits())
    }
}

fn numbers(bits: u64) -> Vec<i16> {
    let shares = shares::list(bits).into_iter();
    shares
        .filter_map(|share| i16::try_from(share).ok())
        .collect()
}

/// Kinds of pushers that are sent anything.
fn kinds(rooms: &Rooms) -> Vec<String> {
    let http = rooms.ctx().config.push.enabled.then_some("http");
    let mails = rooms.ctx().mail.is_some().then_some("email");
    let kinds = http.into_iter().chain(mails);
    kinds.map(ToOwned::to_owned).collect()
}

/// Queues and sends, for ever.
pub async fn run(rooms: Rooms) {
    if kinds(&rooms).is_empty() {
        return;
    }
    let push = &rooms.0.push;
    let take = |bits| take(&rooms, bits);
    tokio::join!(
        push.shares.keep(&rooms.ctx().db, take),
        follow(&rooms),
        delivery::run(&rooms),
        mails::run(&rooms)
    );
}

/// Takes shares over from where they were left.
async fn take(rooms: &Rooms, bits: u64) -> Result<(), storage::Error> {
    let push = &rooms.0.push;
    let mut conn = rooms.ctx().db.conn().await?;
    let found = push_queue::list_shares(&mut conn, &numbers(bits)).await?;
    drop(conn);
    push.seen().extend(found);
    push.shares.gain(bits);
    push.gained.notify_one();
    push.wake.notify_one();
    Ok(())
}

async fn follow(rooms: &Rooms) {
    let mut rows = rooms.ctx().db.stream.subscribe();
    loop {
        match advance(rooms).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "pushers do not hear");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let wait = tokio::time::timeout(LOOK_EVERY, rows.recv());
        tokio::select! {
            wait = wait => if matches!(wait, Ok(Err(RecvError::Closed))) {
                return;
            },
            () = rooms.0.push.gained.notified() => {}
        }
    }
}

/// Queues some of what happened; `false`: there is nothing more.
async fn advance(rooms: &Rooms) -> Result<bool, Error> {
    let push = &rooms.0.push;
    let horizon = rooms.ctx().db.stream.horizon();
    let shares = push.shares();
    let seen = push.seen().clone();
    let positions = shares.iter().filter_map(|share| seen.get(share));
    let Some(after) = positions.min().copied().filter(|after| *after < horizon) else {
        return Ok(false);
    };
    let kinds = [LogKind::Event, LogKind::OutOfBand, LogKind::Receipt];
    let mut conn = rooms.ctx().db.conn().await?;
    let (news, mut upto) = news::list(&mut conn, (after, horizon), &kinds).await?;
    drop(conn);
    let (heard, count) = heard::listen(rooms, &news, &shares).await?;
    if count < news.len()
        && let Some(last) = news[..count].last()
    {
        upto = last.row.pos;
    }
    // Noted now and then also where nothing is queued, so that a restart begins near here.
    if !heard.is_empty() || upto / news::SPAN != after / news::SPAN {
        queue(rooms, &shares, heard, upto).await?;
        push.wake.notify_one();
    }
    let mut seen = push.seen();
    for share in shares {
        let pos = seen.entry(share).or_insert(upto);
        *pos = upto.max(*pos);
    }
    Ok(true)
}

/// What is to be told.
#[derive(Debug, Default)]
struct Heard {
    /// Events, in the order in which they came.
    rows: Vec<Queued>,
    /// Pushers of users who may have read something, or have more or fewer invitations.
    recount: BTreeSet<i64>,
    /// What is to be mailed.
    mailed: Vec<Mailed>,
    /// Pushers that mail, with rooms where their users read or write.
    put_off: BTreeSet<(i64, i64)>,
}

/// Something new in a room, for a pusher that mails.
#[derive(Debug)]
struct Mailed {
    pusher: i64,
    share: i16,
    pos: Pos,
    room: RoomNid,
}

impl Mailed {
    fn of(listener: &Listener, pos: Pos, room: RoomNid) -> Self {
        Self {
            pusher: listener.pusher,
            share: listener.share,
            pos,
            room,
        }
    }
}

impl Heard {
    fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.recount.is_empty()
            && self.mailed.is_empty()
            && self.put_off.is_empty()
    }
}

/// Queues what is news, up to a position. Another node may have had a share before, and been faster
/// with some of it.
async fn queue(rooms: &Rooms, shares: &[i16], mut heard: Heard, upto: Pos) -> Result<(), Error> {
    let now = now_ms();
    let jitter = i64::from(rooms.ctx().config.push.jitter_ms);
    let mut tx = rooms.ctx().db.begin().await?;
    let locked = push_queue::lock_shares(&mut tx, shares).await?;
    let locked: BTreeMap<i16, Pos> = locked.into_iter().collect();
    heard
        .rows
        .retain(|row| locked.get(&row.share).is_some_and(|pos| row.pos > *pos));
    let is_new = |it: &Mailed| locked.get(&it.share).is_some_and(|pos| it.pos > *pos);
    heard.mailed.retain(is_new);
    mails::note(rooms, &mut tx, &heard, now).await?;
    if !heard.is_empty() {
        let queued: BTreeSet<i64> = heard.rows.iter().map(|row| row.pusher).collect();
        let queued: Vec<i64> = queued.into_iter().collect();
        let recount: Vec<i64> = heard.recount.into_iter().collect();
        if !heard.rows.is_empty() {
            push_queue::insert(&mut tx, &heard.rows, now).await?;
        }
        push_queue::wake(&mut tx, (&queued, &recount), now, jitter).await?;
    }
    push_queue::update_shares(&mut tx, shares, upto).await?;
    Ok(tx.commit().await?)
}
