//! The worker: what peers are owed, in transactions, one at a time for each peer.
//!
//! The log is followed once for all peers: an event is read once, and every peer that is owed it and
//! keeps up gets it from memory. A peer has a cursor into `fed_outbox`; who fails, or is slower than
//! what is said, drops out of memory and is brought up from there. A crash repeats the last
//! transactions at most, and peers know events by their ids.

mod acks;
mod lanes;
mod measured;
mod peer;
mod queue;
mod shares;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use ruma::{OwnedServerName, ServerName, api::federation::transactions::edu::Edu, serde::Raw};
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;

use self::{acks::Acks, lanes::Lanes, measured::Measured, peer::Peer, queue::Queue};
use super::Client;
use crate::{
    clock::now_ms,
    storage::{
        self, Db, LogKind, Pos, ServerNid,
        outbox::{self, News, Progress},
    },
};

/// Events read from the outbox at once.
const NEWS_AT_ONCE: i64 = 200;
/// How often peers are looked for whose pause is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Peers that are taken up again in one look.
const REVIVED_AT_ONCE: usize = 500;
/// How long a peer that failed and speaks to us is left alone after a try.
const ALIVE_EVERY_MS: i64 = 5_000;
/// The same, for peers that another node sends to.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Failures that are remembered.
const REASONS_MAX: u64 = 10_000;
/// Pause after the database failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends to peers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    client: Client,
    own: OwnedServerName,
    lanes: Lanes,
    acks: Acks,
    measured: Measured,
    /// Peers that this node sends to.
    shares: storage::shares::Shares,
    peers: Mutex<Peers>,
    /// Events up to this position were handed out.
    seen: AtomicI64,
    /// Why peers that fail were not reached the last time.
    reasons: Cache<ServerNid, Arc<str>>,
    /// Peers of other nodes' shares that were told to be alive a moment ago.
    told: Cache<ServerNid, ()>,
}

type Peers = HashMap<ServerNid, Place>;

/// Where a peer stands.
#[derive(Debug)]
enum Place {
    /// It has everything; no task.
    Idle(Progress),
    /// A task sends to it.
    Active(Arc<Queue>),
    /// It failed, or was not looked at since the start: what it is owed is on disk. Not tried
    /// before the time in the progress.
    Resting(Progress),
    /// Rules refuse it: what it is owed waits on disk until they do not.
    Refused(Progress),
}

/// How a task ended.
enum End {
    /// The peer has everything.
    Idle,
    /// The peer rests.
    Resting,
    /// The peer is refused.
    Refused,
}

impl Sender {
    /// Starts to follow the log, after the peers that are behind.
    pub fn start(db: Db, client: Client, own: OwnedServerName) -> Self {
        let sender = Self(Arc::new(Inner {
            db,
            client,
            own,
            lanes: Lanes::new(),
            acks: Acks::default(),
            measured: Measured::default(),
            shares: shares::none(),
            peers: Mutex::default(),
            seen: AtomicI64::new(0),
            reasons: Cache::new(REASONS_MAX),
            told: Cache::builder()
                .max_capacity(REASONS_MAX)
                .time_to_live(ALIVE_EVERY)
                .build(),
        }));
        let of = sender.clone();
        tokio::spawn(async move { of.0.acks.run(&of.0.db).await });
        tokio::spawn(follow(sender.clone()));
        tokio::spawn(heed_rules(sender.clone()));
        sender
    }

    /// Queues an EDU for some peers. `about` tells what it replaces: type, room, user. Peers that
    /// are away or refused miss it.
    pub async fn edu(&self, servers: &[ServerNid], about: &str, edu: &Raw<Edu>) {
        let known = async {
            let own = self.0.db.ids.server(&self.0.own).await?;
            let others = servers.iter().copied().filter(|server| *server != own);
            let others: Vec<ServerNid> = others.collect();
            self.know(&others, self.seen()).await?;
            Ok::<_, storage::Error>(others)
        };
        let others = match known.await {
            Ok(others) => others,
            Err(error) => {
                tracing::warn!(%error, "federation: an EDU was not queued");
                return;
            }
        };
        let mut peers = self.peers();
        for server in others {
            if let Some(queue) = self.queue(&mut peers, server) {
                queue.push_edu(about, edu);
            }
        }
    }

    /// A peer spoke to us: what it is owed is tried at once.
    pub async fn peer_alive(&self, server: &ServerName) {
        self.0.client.alive(server);
        let Ok(nid) = self.0.db.ids.server(server).await else {
            return;
        };
        if self.is_elsewhere(nid)
            && let Err(error) = self.tell_other(nid).await
        {
            tracing::debug!(%error, "federation: another node was not told that a peer lives");
        }
        let mut peers = self.peers();
        match peers.get(&nid) {
            Some(Place::Active(queue)) => queue.alive(),
            Some(Place::Resting(progress)) if now_ms() - progress.tried_ts() >= ALIVE_EVERY_MS => {
                self.revive(&mut peers, nid);
            }
            _ => {}
        }
    }

    /// Tries a peer at once, however long it is to rest.
    pub async fn reset(&self, server: ServerNid, name: &ServerName) -> Result<(), storage::Error> {
        self.0.client.alive(name);
        if self.is_elsewhere(server) {
            return self.tell(server).await;
        }
        self.try_now(server);
        Ok(())
    }

    fn try_now(&self, server: ServerNid) {
        let mut peers = self.peers();
        match peers.get(&server) {
            Some(Place::Active(queue)) => queue.alive(),
            Some(Place::Resting(_)) => self.revive(&mut peers, server),
            Some(Place::Idle(_) | Place::Refused(_)) | None => {}
        }
    }

    /// Why a peer that fails was not reached the last time, as far as this node has tried.
    pub fn reason(&self, server: ServerNid) -> Option<Arc<str>> {
        self.0.reasons.get(&server)
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, Peers> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Pos {
        self.0.seen.load(Ordering::Acquire)
    }

    /// Peers that are new are written down, as owed nothing up to a position, before anything is
    /// sent to anybody beyond it.
    async fn know(&self, servers: &[ServerNid], floor: Pos) -> Result<(), storage::Error> {
        let new: Vec<i32> = {
            let peers = self.peers();
            let unknown = servers.iter().filter(|server| !peers.contains_key(server));
            unknown.map(|server| server.0).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let mut conn = self.0.db.conn().await?;
        outbox::insert_new(&mut conn, &new, floor).await?;
        let mut peers = self.peers();
        for server in new {
            let progress = Progress::at(floor);
            peers
                .entry(ServerNid(server))
                .or_insert(Place::Idle(progress));
        }
        Ok(())
    }

    /// The queue of a peer that keeps up, with a task behind it; `None`: the peer rests. It is good
    /// while the table is locked, without that its task may end.
    fn queue(&self, peers: &mut Peers, server: ServerNid) -> Option<Arc<Queue>> {
        let progress = match peers.get(&server)? {
            Place::Active(queue) => return Some(queue.clone()),
            Place::Resting(_) | Place::Refused(_) => return None,
            Place::Idle(progress) => *progress,
        };
        Some(self.begin(peers, server, (progress, false)))
    }

    fn revive(&self, peers: &mut Peers, server: ServerNid) {
        if let Some(Place::Resting(progress)) = peers.get(&server) {
            let progress = *progress;
            self.begin(peers, server, (progress, true));
        }
    }

    fn begin(
        &self,
        peers: &mut Peers,
        server: ServerNid,
        (progress, is_behind): (Progress, bool),
    ) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(is_behind));
        peers.insert(server, Place::Active(queue.clone()));
        tokio::spawn(peer::run(Peer::new(
            self.clone(),
            server,
            queue.clone(),
            progress,
        )));
        queue
    }

    /// Ends a task; `false`: there is something for it to do after all.
    fn end(&self, server: ServerNid, queue: &Queue, progress: Progress, end: &End) -> bool {
        let mut peers = self.peers();
        let place = match end {
            End::Idle if !queue.is_empty() => return false,
            End::Idle => Place::Idle(progress),
            End::Resting => Place::Resting(progress),
            End::Refused => Place::Refused(progress),
        };
        peers.insert(server, place);
        true
    }

    /// Hands out events in `(after, upto]`.
    async fn look(&self, after: Pos, upto: Pos) -> Result<(), storage::Error> {
        let own = self.0.db.ids.server(&self.0.own).await?;
        let mut from = after;
        while from < upto {
            let mut conn = self.0.db.conn().await?;
            let mut news = outbox::list_news(&mut conn, (from, upto), NEWS_AT_ONCE).await?;
            drop(conn);
            let is_all = news.len() < usize::try_from(NEWS_AT_ONCE).unwrap_or(usize::MAX);
            let reached = if is_all {
                upto
            } else {
                news.last().map_or(upto, |event| event.pos)
            };
            for event in &mut news {
                event.servers.retain(|server| *server != own);
            }
            let mut servers: Vec<ServerNid> = news
                .iter()
                .flat_map(|event| &event.servers)
                .copied()
                .collect();
            servers.sort_unstable();
            servers.dedup();
            self.know(&servers, from).await?;
            // First this: whoever is brought up from disk from now on reads up to here.
            self.0.seen.store(reached, Ordering::Release);
            self.hand_out(news);
            from = reached;
        }
        self.0.seen.store(upto, Ordering::Release);
        Ok(())
    }

    fn hand_out(&self, news: Vec<News>) {
        let mut peers = self.peers();
        for event in news {
            let Ok(body) = RawValue::from_string(event.body) else {
                continue;
            };
            let body: Arc<RawValue> = body.into();
            for server in event.servers {
                if self.is_elsewhere(server) {
                    continue;
                }
                if let Some(queue) = self.queue(&mut peers, server) {
                    queue.push(event.pos, &body);
                }
            }
        }
    }

    /// Takes up peers whose pause is over. Those of other nodes are as good as well: whether they
    /// are is for the others to find out.
    fn revive_due(&self) {
        let now = now_ms();
        let mut peers = self.peers();
        let due: Vec<ServerNid> = peers
            .iter()
            .filter(|(_, place)| {
                matches!(place, Place::Resting(progress) if progress.retry_at_ts <= now)
            })
            .map(|(server, _)| *server)
            .take(REVIVED_AT_ONCE)
            .collect();
        for server in due {
            if !self.is_elsewhere(server) {
                self.revive(&mut peers, server);
            } else if let Some(place) = peers.get_mut(&server)
                && let Place::Resting(progress) = place
            {
                *place = Place::Idle(*progress);
            }
        }
        let (mut active, mut resting) = (0_u32, 0_u32);
        for place in peers.values() {
            match place {
                Place::Idle(_) => {}
                Place::Active(_) => active += 1,
                Place::Resting(_) | Place::Refused(_) => resting += 1,
            }
        }
        drop(peers);
        metrics::gauge!("federation_peers", "state" => "active").set(active);
        metrics::gauge!("federation_peers", "state" => "resting").set(resting);
    }
}

/// Follows the log; what was written before the start is looked at first.
async fn follow(sender: Sender) {
    let db = &sender.0.db;
    let mut rows = db.stream.subscribe();
    while let Err(error) = catch_up(&sender).await {
        tracing::error!(%error, "federation: what peers are owed could not be read");
        tokio::time::sleep(PAUSE).await;
    }
    tokio::spawn(shares::run(sender.clone()));
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (events, edus) = tokio::select! {
            batch = rows.recv() => match batch {
                Ok(batch) => {
                    sender.heed_the_living(&batch);
                    (
                        batch
                            .iter()
                            .any(|row| matches!(row.kind, LogKind::Event | LogKind::Owed)),
                        batch
                            .iter()
                            .any(|row| matches!(row.kind, LogKind::DeviceList | LogKind::ToDevice)),
                    )
                }
                Err(RecvError::Lagged(_)) => (true, true),
                Err(RecvError::Closed) => return,
            },
            _ = clock.tick() => {
                sender.revive_due();
                // What could not be read before is read now.
                (true, false)
            }
        };
        if edus && let Err(error) = look_for_edus(&sender).await {
            tracing::warn!(%error, "federation: EDUs could not be read");
        }
        let (seen, horizon) = (sender.seen(), db.stream.horizon());
        if events
            && horizon > seen
            && let Err(error) = sender.look(seen, horizon).await
        {
            tracing::warn!(%error, "federation: outbox could not be read");
        }
    }
}

/// Takes up peers that were refused, when rules change; those that still are come back here.
async fn heed_rules(sender: Sender) {
    let mut changed = sender.0.client.gate().changed();
    while changed.changed().await.is_ok() {
        for place in sender.peers().values_mut() {
            if let Place::Refused(progress) = place {
                *place = Place::Resting(*progress);
            }
        }
    }
}

/// Peers beyond what was ever delivered are written down. Nothing is sent before this node has its
/// share of the peers.
async fn catch_up(sender: &Sender) -> Result<(), storage::Error> {
    let db = &sender.0.db;
    let horizon = db.stream.horizon();
    let mut conn = db.conn().await?;
    let known = outbox::list_progress(&mut conn).await?;
    drop(conn);
    // Peers are written down before anybody is sent what they are owed: what is beyond the largest
    // cursor may be owed to peers that nobody knows yet.
    let newest = known.iter().map(|(_, progress)| progress.acked_pos).max();
    let newest = newest.unwrap_or(0);
    sender.0.seen.store(newest, Ordering::Release);
    sender.look(newest, horizon).await
}

/// Wakes the tasks of peers that durable EDUs wait for.
async fn look_for_edus(sender: &Sender) -> Result<(), storage::Error> {
    let mut conn = sender.0.db.conn().await?;
    let servers = storage::to_device::list_edu_servers(&mut conn).await?;
    drop(conn);
    sender.know(&servers, sender.seen()).await?;
    let mut peers = sender.peers();
    for server in servers {
        if sender.is_elsewhere(server) {
            continue;
        }
        if let Some(queue) = sender.queue(&mut peers, server) {
            queue.look_for_durable();
        }
    }
    Ok(())
}
