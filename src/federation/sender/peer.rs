//! One peer's task: a transaction at a time, until there is nothing more or the peer fails.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use ruma::{
    OwnedServerName, OwnedTransactionId,
    api::federation::transactions::{edu::Edu, send_transaction_message},
    serde::Raw,
};
use serde_json::value::RawValue;

use super::{
    End, PAUSE, Sender,
    queue::{Edus, Owed, Queue},
};
use crate::{
    clock::{from_ms, now_ms},
    federation::Error,
    storage::{
        self, ServerNid,
        outbox::{self, Progress},
        to_device,
    },
};

/// PDUs in a transaction (specification).
const PDUS_MAX: usize = 50;
/// EDUs in a transaction (specification), and how many of those may be durable ones.
const EDUS_MAX: usize = 100;
const DURABLE_MAX: i64 = 50;
/// Events up to which a peer that was away gets every single one; beyond, the newest of each room.
const OWED_MAX: usize = 200;
/// Pause after the first failure.
const BACKOFF_FIRST_MS: i64 = 1_000;
/// Longest pause.
const BACKOFF_LONGEST_MS: i64 = 3_600_000;
/// From this pause on a peer rests without a task.
const BACKOFF_RESTING_MS: i64 = 30_000;
/// A task without work ends after this long.
const IDLE: Duration = Duration::from_mins(1);
/// Who answers sooner than this is quick.
const QUICK: Duration = Duration::from_secs(1);

/// What goes out together, and again until the peer has taken it.
#[derive(Debug)]
struct Transaction {
    id: OwnedTransactionId,
    pdus: Vec<Owed>,
    /// Durable EDUs by number.
    durable: Vec<(i64, Raw<Edu>)>,
    edus: Edus,
}

/// A peer and what its task knows of it.
#[derive(Debug)]
pub(super) struct Peer {
    sender: Sender,
    server: ServerNid,
    queue: Arc<Queue>,
    progress: Progress,
    /// Read from disk, before what waits in memory.
    ready: VecDeque<Owed>,
}

impl Peer {
    pub(super) fn new(
        sender: Sender,
        server: ServerNid,
        queue: Arc<Queue>,
        progress: Progress,
    ) -> Self {
        Self {
            sender,
            server,
            queue,
            progress,
            ready: VecDeque::new(),
        }
    }

    /// Whether this node sends what the peer is owed; if not, it sends EDUs of the moment only.
    fn is_ours(&self) -> bool {
        !self.sender.is_elsewhere(self.server)
    }

    /// Ends the task, where nothing speaks against it.
    fn end(&self, end: &End) -> bool {
        self.sender
            .end(self.server, &self.queue, self.progress, end)
    }
}

/// The task.
pub(super) async fn run(mut peer: Peer) {
    let name = loop {
        match peer.sender.0.db.ids.server_name(peer.server).await {
            Ok(name) => break name,
            Err(error) => {
                tracing::warn!(%error, "federation: the name of a peer could not be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    loop {
        if !peer.sender.0.client.gate().allows(&name) {
            peer.end(&End::Refused);
            return;
        }
        match peer.gather().await {
            Ok(Some(transaction)) => {
                if !peer.deliver(&name, transaction).await {
                    peer.end(&End::Resting);
                    return;
                }
            }
            Ok(None) => {
                if !peer.queue.wait(IDLE).await && peer.end(&End::Idle) {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, server = %name, "federation: what a peer is owed could not be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Peer {
    /// The next transaction, if there is anything to send.
    async fn gather(&mut self) -> Result<Option<Transaction>, storage::Error> {
        if self.queue.drop_owed(|| self.is_ours()) {
            self.ready.clear();
        }
        if self.ready.is_empty()
            && let Some(upto) = self.queue.begin_reading(|| self.sender.seen())
            && let Err(error) = self.read(upto).await
        {
            self.queue.fall_behind();
            return Err(error);
        }
        let durable = self.durable().await?;
        let count = self.ready.len().min(PDUS_MAX);
        let mut pdus: Vec<Owed> = self.ready.drain(..count).collect();
        if self.ready.is_empty() {
            pdus.extend(self.queue.take_pdus(PDUS_MAX - pdus.len()));
        }
        let edus = self.queue.take_edus(EDUS_MAX - durable.len());
        if pdus.is_empty() && durable.is_empty() && edus.is_empty() {
            return Ok(None);
        }
        let id = format!("{}_{:x}", now_ms(), rand::random::<u64>());
        Ok(Some(Transaction {
            id: id.into(),
            pdus,
            durable,
            edus,
        }))
    }

    /// Reads what the peer is owed: everything, or where that is much, the newest of each room.
    async fn read(&mut self, upto: i64) -> Result<(), storage::Error> {
        let all = i64::try_from(OWED_MAX + 1).unwrap_or(i64::MAX);
        let mut conn = self.sender.0.db.conn().await?;
        // Another node may have sent to it.
        if let Some((acked, _)) = outbox::find_progress(&mut conn, self.server).await? {
            self.progress.acked_pos = self.progress.acked_pos.max(acked);
        }
        let span = (self.progress.acked_pos, upto);
        let mut owed = outbox::list_owed(&mut conn, self.server, span, all).await?;
        if owed.len() > OWED_MAX {
            let page = i64::try_from(PDUS_MAX).unwrap_or(i64::MAX);
            owed = outbox::list_newest_owed(&mut conn, self.server, span, page).await?;
            self.queue.fall_behind();
        }
        let parsed = owed.into_iter().filter_map(|(pos, json)| {
            let body = RawValue::from_string(json).ok()?;
            Some((pos, body.into()))
        });
        self.ready = parsed.collect();
        Ok(())
    }

    async fn durable(&self) -> Result<Vec<(i64, Raw<Edu>)>, storage::Error> {
        if !self.queue.take_durable() {
            return Ok(Vec::new());
        }
        let read = async {
            let mut conn = self.sender.0.db.conn().await?;
            to_device::list_edus(&mut conn, self.server, DURABLE_MAX).await
        };
        let rows = read.await.inspect_err(|_| self.queue.look_for_durable())?;
        if !rows.is_empty() {
            // There may be more, or these may have to be read again.
            self.queue.look_for_durable();
        }
        let rows = rows.into_iter().filter_map(|(number, json)| {
            Some((number, Raw::from_json(RawValue::from_string(json).ok()?)))
        });
        Ok(rows.collect())
    }

    /// Sends a transaction until the peer takes it; `false`: it is to rest.
    async fn deliver(&mut self, name: &OwnedServerName, transaction: Transaction) -> bool {
        loop {
            match self.send(name, &transaction).await {
                Ok(()) => {
                    self.delivered(name, &transaction).await;
                    return true;
                }
                Err(error) => {
                    let pause = self.failed(name, &error);
                    if pause >= BACKOFF_RESTING_MS {
                        return false;
                    }
                    self.queue
                        .rest(Duration::from_millis(pause.unsigned_abs()))
                        .await;
                    if !self.is_ours() {
                        // What is owed another node sends, and the moment has passed.
                        return true;
                    }
                }
            }
        }
    }

    async fn send(&self, name: &OwnedServerName, transaction: &Transaction) -> Result<(), Error> {
        let inner = &self.sender.0;
        let bytes = transaction.bytes();
        let Some(quick) = inner.lanes.quick(bytes).await else {
            return Err(Error::Request("stopping".to_owned()));
        };
        let request = inner
            .client
            .request_now(name, transaction.request(inner.own.clone()));
        tokio::pin!(request);
        let in_time = tokio::time::timeout(QUICK, request.as_mut()).await;
        let answer = if let Ok(answer) = in_time {
            answer?
        } else {
            let Some(_slow) = inner.lanes.slow(bytes) else {
                return Err(Error::Unreachable {
                    server: name.to_string(),
                    reason: "no answer, and too many others that do not".to_owned(),
                });
            };
            drop(quick);
            request.await?
        };
        for (event_id, refusal) in answer.pdus {
            if let Err(refusal) = refusal {
                tracing::info!(%event_id, %name, refusal, "a peer refused an event");
            }
        }
        Ok(())
    }

    async fn delivered(&mut self, name: &OwnedServerName, transaction: &Transaction) {
        metrics::counter!("federation_transactions_sent_total", "result" => "ok").increment(1);
        self.measure(name, true);
        if let Some(since) = self.progress.failing_since_ts {
            let seconds = (now_ms() - since) / 1_000;
            tracing::info!(server = %name, seconds, "federation: a peer is back");
            self.sender.0.reasons.invalidate(&self.server);
        }
        let was_well = self.progress.failing_since_ts.is_none();
        let acked = transaction.pdus.last().map(|(pos, _)| *pos);
        let acked = acked.map_or(self.progress.acked_pos, |pos| {
            pos.max(self.progress.acked_pos)
        });
        self.progress = Progress {
            last_ok_ts: Some(now_ms()),
            ..Progress::at(acked)
        };
        if !transaction.pdus.is_empty() || !was_well {
            self.note();
        }
        let numbers: Vec<i64> = transaction
            .durable
            .iter()
            .map(|(number, _)| *number)
            .collect();
        if !numbers.is_empty() {
            self.forget(&numbers).await;
        }
    }

    /// The same for this peer alone, where it is among those that are measured.
    fn measure(&self, name: &OwnedServerName, is_ok: bool) {
        if !self.sender.0.measured.admits(self.server) {
            return;
        }
        let peer = name.to_string();
        let result = if is_ok { "ok" } else { "failed" };
        metrics::counter!(
            "federation_peer_transactions_total", "peer" => peer.clone(), "result" => result
        )
        .increment(1);
        let pause = if is_ok {
            0
        } else {
            self.progress.backoff_ms / 1_000
        };
        metrics::gauge!("federation_peer_pause_seconds", "peer" => peer.clone())
            .set(i32::try_from(pause).unwrap_or(i32::MAX));
        let waiting = i32::try_from(self.ready.len() + self.queue.len()).unwrap_or(i32::MAX);
        metrics::gauge!("federation_peer_waiting", "peer" => peer).set(waiting);
    }

    /// Writes down how far the peer is, where that is for this node to say.
    fn note(&self) {
        if self.is_ours() {
            self.sender.0.acks.put(self.server, self.progress);
        }
    }

    /// Deletes durable EDUs that were taken. They are not read again before that is done.
    async fn forget(&self, numbers: &[i64]) {
        loop {
            let delete = async {
                let mut conn = self.sender.0.db.conn().await?;
                to_device::delete_edus(&mut conn, self.server, numbers).await
            };
            match delete.await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "federation: EDUs could not be deleted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Notes a failure; the pause in milliseconds.
    fn failed(&mut self, name: &OwnedServerName, error: &Error) -> i64 {
        metrics::counter!("federation_transactions_sent_total", "result" => "failed").increment(1);
        let now = now_ms();
        let pause = (self.progress.backoff_ms * 2).clamp(BACKOFF_FIRST_MS, BACKOFF_LONGEST_MS);
        // Jitter, so that peers which failed together do not all come back together.
        let pause = pause - rand::random_range(0..=pause / 5);
        if self.progress.failing_since_ts.is_none() {
            tracing::info!(%error, server = %name, "federation: a peer was not reached");
        } else {
            tracing::debug!(%error, server = %name, pause, "federation: a peer is still not reached");
        }
        self.progress = Progress {
            failing_since_ts: self.progress.failing_since_ts.or(Some(now)),
            retry_at_ts: now + pause,
            backoff_ms: pause,
            ..self.progress
        };
        self.note();
        let reason = error.to_string().into();
        self.sender.0.reasons.insert(self.server, reason);
        self.measure(name, false);
        pause
    }
}

impl Transaction {
    fn bytes(&self) -> usize {
        let pdus = self.pdus.iter().map(|(_, body)| body.get().len());
        let durable = self.durable.iter().map(|(_, edu)| edu.json().get().len());
        let edus = self.edus.values().map(|edu| edu.json().get().len());
        pdus.chain(durable).chain(edus).sum()
    }

    fn request(&self, own: OwnedServerName) -> send_transaction_message::v1::Request {
        let mut request = send_transaction_message::v1::Request::new(
            self.id.clone(),
            own,
            ruma::MilliSecondsSinceUnixEpoch(from_ms(now_ms())),
        );
        request.pdus = self
            .pdus
            .iter()
            .map(|(_, body)| RawValue::to_owned(body))
            .collect();
        let durable = self.durable.iter().map(|(_, edu)| edu.clone());
        request.edus = durable.chain(self.edus.values().cloned()).collect();
        request
    }
}
