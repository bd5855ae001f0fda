//! The task of one application service: a transaction at a time, until it is taken. A service that
//! is not reached holds up nobody else.

use std::time::Duration;

use super::{Error, LOOK_EVERY, Rooms, transaction};
use crate::{rooms::locks::Lock, storage::appservices};

/// How often it is looked whether something waits when nobody gave a hint.
const IDLE: Duration = Duration::from_secs(30);
/// Pause after the first failure.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause: who mends a service does not want to wait long.
const BACKOFF_LONGEST: Duration = Duration::from_mins(5);

/// Sends what waits for a service, for ever.
pub(super) async fn run(rooms: &Rooms, place: usize, nid: i32) {
    let mut pause = Duration::ZERO;
    loop {
        let wait = match turn(rooms, place, nid).await {
            Ok(Turn::Idle) => {
                pause = Duration::ZERO;
                let wake = rooms.feed().lines[place].wake.notified();
                // Either way it is looked.
                let _ = tokio::time::timeout(IDLE, wake).await;
                continue;
            }
            Ok(Turn::Elsewhere) => LOOK_EVERY,
            Ok(Turn::Failed) => {
                pause = (pause * 2).clamp(BACKOFF_FIRST, BACKOFF_LONGEST);
                // Jitter, so that services which failed together do not all come back together.
                pause.mul_f64(rand::random_range(0.8..1.0))
            }
            Err(error) => {
                let service = &rooms.ctx().appservices.all()[place].id;
                tracing::warn!(%error, service, "an application service cannot be sent to");
                LOOK_EVERY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// How sending went.
enum Turn {
    /// Nothing waits.
    Idle,
    /// Another node sends.
    Elsewhere,
    /// The service did not take a transaction.
    Failed,
}

async fn turn(rooms: &Rooms, place: usize, nid: i32) -> Result<Turn, Error> {
    let lock = Lock::Appservice(nid);
    if !rooms.0.locks.try_lock(rooms, lock).await? {
        return Ok(Turn::Elsewhere);
    }
    let sent = send_all(rooms, place, nid).await;
    rooms.0.locks.unlock(lock).await;
    sent
}

async fn send_all(rooms: &Rooms, place: usize, nid: i32) -> Result<Turn, Error> {
    let services = &rooms.ctx().appservices;
    let service = &services.all()[place];
    while let Some((txn_id, body)) = transaction::next(rooms, place, nid).await? {
        let sent = services.transaction(service, &txn_id, &body).await;
        let result = if sent.is_ok() { "ok" } else { "failed" };
        metrics::counter!("appservice_transactions_sent_total", "result" => result).increment(1);
        let mut conn = rooms.ctx().db.conn().await?;
        let failures = appservices::update_failures(&mut conn, nid, sent.is_err()).await?;
        match sent {
            Ok(()) => {
                appservices::delete_txn(&mut conn, nid, &txn_id).await?;
                if failures > 0 {
                    tracing::info!(
                        service = service.id,
                        failures,
                        "an application service is back"
                    );
                }
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, service = service.id, "an application service does not take a transaction");
                } else {
                    tracing::debug!(%error, service = service.id, failures, "an application service still does not take a transaction");
                }
                return Ok(Turn::Failed);
            }
        }
    }
    Ok(Turn::Idle)
}
