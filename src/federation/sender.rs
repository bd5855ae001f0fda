//! The worker: what peers are owed, in transactions, one at a time for each peer.
//!
//! Nothing is queued in memory but small, losable EDUs. A peer has a cursor into `fed_outbox`;
//! its task reads what lies behind the cursor, sends it, and moves the cursor. A crash repeats the
//! last transaction at most, with the same id, which peers answer from their memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ruma::{
    OwnedServerName, ServerName,
    api::federation::transactions::{edu::Edu, send_transaction_message},
    serde::Raw,
};
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore};

use super::{Client, Error};
use crate::{
    clock::{from_ms, now_ms},
    storage::{self, Db, LogKind, Pos, ServerNid},
};

/// PDUs in a transaction (specification).
const PDUS_MAX: i64 = 50;
/// EDUs in a transaction (specification), and how many of those may be durable ones.
const EDUS_MAX: usize = 100;
const DURABLE_MAX: i64 = 50;
/// Requests to peers under way at once.
const REQUESTS_MAX: usize = 64;
/// Pause after the first failure.
const BACKOFF_FIRST_MS: i64 = 1_000;
/// Longest pause.
const BACKOFF_LONGEST_MS: i64 = 3_600_000;
/// A task without work ends after this long.
const IDLE: Duration = Duration::from_mins(5);

/// EDUs by what they are about.
type Edus = BTreeMap<String, Raw<Edu>>;

/// Sends to peers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    client: Client,
    own: OwnedServerName,
    requests: Semaphore,
    queues: Mutex<HashMap<ServerNid, Arc<Queue>>>,
}

/// What a peer's task waits on.
#[derive(Debug, Default)]
struct Queue {
    wake: Notify,
    /// Latest EDU by what it is about: a newer one takes the place of an older one.
    edus: Mutex<Edus>,
    /// Position below which it is owed nothing when it is new.
    floor: Pos,
    /// The peer spoke to us: try at once.
    alive: Notify,
}

impl Sender {
    /// Starts to follow the log, after the peers that are behind.
    pub fn start(db: Db, client: Client, own: OwnedServerName) -> Self {
        let sender = Self(Arc::new(Inner {
            db,
            client,
            own,
            requests: Semaphore::new(REQUESTS_MAX),
            queues: Mutex::new(HashMap::new()),
        }));
        tokio::spawn(follow(sender.clone()));
        tokio::spawn(heed_rules(sender.clone()));
        sender
    }

    /// Queues an EDU for some peers. `about` tells what it replaces: type, room, user.
    pub async fn edu(&self, servers: &[OwnedServerName], about: &str, edu: &Raw<Edu>) {
        let own = &self.0.own;
        let gate = self.0.client.gate();
        let told = |server: &&OwnedServerName| *server != own && gate.allows(server);
        for server in servers.iter().filter(told) {
            let Ok(nid) = self.0.db.ids.server(server).await else {
                continue;
            };
            let queue = self.queue(nid, self.0.db.stream.horizon());
            let mut edus = queue.edus.lock().unwrap_or_else(PoisonError::into_inner);
            // A peer that is away for long loses old typing notices, not memory of ours.
            if edus.len() < EDUS_MAX * 5 || edus.contains_key(about) {
                edus.insert(about.to_owned(), edu.clone());
            }
            drop(edus);
            queue.wake.notify_one();
        }
    }

    /// A peer spoke to us: what it is owed is tried at once.
    pub async fn peer_alive(&self, server: &ServerName) {
        self.0.client.alive(server);
        if let Ok(nid) = self.0.db.ids.server(server).await {
            let queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(queue) = queues.get(&nid) {
                queue.alive.notify_one();
            }
        }
    }

    fn queue(&self, server: ServerNid, floor: Pos) -> Arc<Queue> {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = queues.entry(server).or_insert_with(|| {
            let queue = Arc::new(Queue {
                floor,
                ..Queue::default()
            });
            tokio::spawn(deliver(self.clone(), server, queue.clone()));
            queue
        });
        entry.clone()
    }

    fn poke(&self, server: ServerNid, floor: Pos) {
        self.queue(server, floor).wake.notify_one();
    }

    /// Wakes the tasks of whoever is owed something in `(after, upto]`.
    async fn look(&self, after: Pos, upto: Pos) -> Result<(), storage::Error> {
        let own = self.0.db.ids.server(&self.0.own).await?;
        let mut conn = self.0.db.conn().await?;
        let servers = storage::outbox::list_destinations(&mut conn, after, upto).await?;
        drop(conn);
        for server in servers.into_iter().filter(|server| *server != own) {
            self.poke(server, after);
        }
        Ok(())
    }
}

/// Follows the log; what was written before the start is looked at first.
async fn follow(sender: Sender) {
    let db = &sender.0.db;
    let mut rows = db.stream.subscribe();
    let mut seen = match catch_up(&sender).await {
        Ok(pos) => pos,
        Err(error) => {
            tracing::error!(%error, "federation: what peers are owed could not be read");
            db.stream.horizon()
        }
    };
    loop {
        let relevant = match rows.recv().await {
            Ok(batch) => {
                if batch
                    .iter()
                    .any(|row| matches!(row.kind, LogKind::DeviceList | LogKind::ToDevice))
                    && let Err(error) = look_for_edus(&sender).await
                {
                    tracing::warn!(%error, "federation: EDUs could not be read");
                }
                batch.iter().any(|row| row.kind == LogKind::Event)
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => true,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        };
        let horizon = db.stream.horizon();
        if relevant && horizon > seen {
            match sender.look(seen, horizon).await {
                Ok(()) => seen = horizon,
                Err(error) => tracing::warn!(%error, "federation: outbox could not be read"),
            }
        }
    }
}

/// Looks for what is owed to servers that were refused and no longer are.
async fn heed_rules(sender: Sender) {
    let mut changed = sender.0.client.gate().changed();
    while changed.changed().await.is_ok() {
        if let Err(error) = catch_up(&sender).await {
            tracing::error!(%error, "federation: what peers are owed could not be read");
        }
    }
}

async fn catch_up(sender: &Sender) -> Result<Pos, storage::Error> {
    let db = &sender.0.db;
    let horizon = db.stream.horizon();
    let mut conn = db.conn().await?;
    let behind = storage::outbox::list_behind(&mut conn).await?;
    let acked = storage::outbox::newest_acked(&mut conn).await?;
    drop(conn);
    for server in behind {
        sender.poke(server, acked);
    }
    sender.look(acked, horizon).await?;
    look_for_edus(sender).await?;
    Ok(horizon)
}

/// Wakes the tasks of peers that durable EDUs wait for.
async fn look_for_edus(sender: &Sender) -> Result<(), storage::Error> {
    let db = &sender.0.db;
    let mut conn = db.conn().await?;
    let servers = storage::to_device::list_edu_servers(&mut conn).await?;
    drop(conn);
    for server in servers {
        sender.poke(server, db.stream.horizon());
    }
    Ok(())
}

/// One peer's task: sends while there is something, then sleeps, then ends.
async fn deliver(sender: Sender, server: ServerNid, queue: Arc<Queue>) {
    loop {
        match round(&sender, server, &queue).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "federation: outbox could not be read"),
        }
        let woken = tokio::time::timeout(IDLE, queue.wake.notified()).await;
        if woken.is_err() {
            let mut queues = sender
                .0
                .queues
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let edus = queue.edus.lock().unwrap_or_else(PoisonError::into_inner);
            // Two references: the table's and ours. A third is about to wake us.
            if edus.is_empty() && Arc::strong_count(&queue) == 2 {
                queues.remove(&server);
                return;
            }
        }
    }
}

/// Sends one transaction; `true`: there may be more.
async fn round(sender: &Sender, server: ServerNid, queue: &Queue) -> Result<bool, storage::Error> {
    let db = &sender.0.db;
    let upto = db.stream.horizon();
    let mut conn = db.conn().await?;
    let dest = storage::outbox::find_or_insert(&mut conn, server, queue.floor).await?;
    // What a refused server is owed waits; `heed_rules` comes back to it.
    if !sender
        .0
        .client
        .gate()
        .allows(&db.ids.server_name(server).await?)
    {
        return Ok(false);
    }
    let owed =
        storage::outbox::list_owed(&mut conn, server, (dest.acked_pos, upto), PDUS_MAX).await?;
    let durable = storage::to_device::list_edus(&mut conn, server, DURABLE_MAX).await?;
    drop(conn);
    let edus = take_edus(queue);
    if owed.is_empty() && edus.is_empty() && durable.is_empty() {
        return Ok(false);
    }
    let rest = dest.retry_at_ts - now_ms();
    if rest > 0 {
        let rest = Duration::from_millis(rest.unsigned_abs());
        let _ = tokio::time::timeout(rest, queue.alive.notified()).await;
    }
    let last = owed.last().map(|(pos, _)| *pos);
    let sent = send(sender, server, (&owed, &durable, &edus)).await?;
    let mut conn = db.conn().await?;
    match sent {
        Ok(()) => {
            let acked = last.unwrap_or(dest.acked_pos);
            storage::outbox::update_acked(&mut conn, server, acked, now_ms()).await?;
            let taken: Vec<i64> = durable.iter().map(|(number, _)| *number).collect();
            if !taken.is_empty() {
                storage::to_device::delete_edus(&mut conn, server, &taken).await?;
            }
            Ok(true)
        }
        Err(error) => {
            tracing::info!(%error, server = server.0, "federation: a peer was not reached");
            give_back(queue, edus);
            let pause = (dest.backoff_ms * 2).clamp(BACKOFF_FIRST_MS, BACKOFF_LONGEST_MS);
            // Jitter, so that peers which failed together do not all come back together.
            let pause = pause - rand::random_range(0..=pause / 5);
            let now = now_ms();
            storage::outbox::update_failed(&mut conn, server, (now, now + pause, pause)).await?;
            Ok(true)
        }
    }
}

/// JSON of PDUs by position, or of EDUs by number.
type Rows<'a> = &'a [(i64, String)];

/// Whether the peer took a transaction.
type Sent = Result<(), Error>;

async fn send(
    sender: &Sender,
    server: ServerNid,
    (owed, durable, edus): (Rows<'_>, Rows<'_>, &Edus),
) -> Result<Sent, storage::Error> {
    let name = sender.0.db.ids.server_name(server).await?;
    // The same PDUs after a crash give the same id; EDUs alone get one of their own.
    let span = |rows: Rows<'_>| match (rows.first(), rows.last()) {
        (Some((first, _)), Some((last, _))) => format!("{first}_{last}"),
        _ => String::new(),
    };
    let id = if owed.is_empty() && durable.is_empty() {
        format!("e{}_{:x}", now_ms(), rand::random::<u32>())
    } else {
        format!("p{}d{}", span(owed), span(durable))
    };
    let mut request = send_transaction_message::v1::Request::new(
        id.into(),
        sender.0.own.clone(),
        ruma::MilliSecondsSinceUnixEpoch(from_ms(now_ms())),
    );
    request.pdus = owed
        .iter()
        .filter_map(|(_, json)| RawValue::from_string(json.clone()).ok())
        .collect();
    request.edus = durable
        .iter()
        .filter_map(|(_, json)| RawValue::from_string(json.clone()).ok())
        .map(Raw::from_json)
        .chain(edus.values().cloned())
        .collect();
    let _permit = sender.0.requests.acquire().await;
    Ok(sender
        .0
        .client
        .request_now(&name, request)
        .await
        .map(|answer| {
            for (event_id, refusal) in answer.pdus {
                if let Err(refusal) = refusal {
                    tracing::info!(%event_id, %name, refusal, "a peer refused an event");
                }
            }
        }))
}

fn take_edus(queue: &Queue) -> Edus {
    let mut edus = queue.edus.lock().unwrap_or_else(PoisonError::into_inner);
    let mut taken = BTreeMap::new();
    while taken.len() < EDUS_MAX / 2
        && let Some((about, edu)) = edus.pop_first()
    {
        taken.insert(about, edu);
    }
    taken
}

fn give_back(queue: &Queue, edus: Edus) {
    let mut waiting = queue.edus.lock().unwrap_or_else(PoisonError::into_inner);
    for (about, edu) in edus {
        waiting.entry(about).or_insert(edu);
    }
}
