//! Sends what pushers have to tell: many of them at once, each one notice after the other.

use std::{collections::HashMap, time::Instant};

use serde::Deserialize;
use tokio::task::JoinSet;
use url::Url;

use super::{Error, KEEP_MS, LOOK_EVERY, Rooms, notice};
use crate::{
    clock::now_ms,
    rooms::push::notice::Notice,
    storage::{
        UserNid,
        push_queue::{self, Done, Due, Waiting},
        unread,
    },
    users::invite_permission::Wishes,
};

/// Pushers that are under way at once.
const SLOTS: usize = 128;
/// How many of them at one gateway: one that hangs leaves places to others.
const SLOTS_A_GATEWAY: usize = 64;
/// Notices of one turn of a pusher.
const ROWS_MAX: i64 = 50;
/// How often it is noted what was told, while more follows.
const NOTE_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// First pause after a failure, and the longest.
const PAUSE_FIRST_MS: i64 = 1_000;
const PAUSE_LONGEST_MS: i64 = 3_600_000;
/// Doublings of the pause after which it is the longest.
const DOUBLINGS_MAX: i32 = 12;
/// Notices that wait for a gateway that fails; the newest stay.
const WAITING_MAX: i64 = 1_000;

/// Sends, for ever.
pub(super) async fn run(rooms: &Rooms) {
    if !rooms.ctx().config.push.enabled {
        return;
    }
    let push = &rooms.0.push;
    let mut turns: JoinSet<()> = JoinSet::new();
    loop {
        if let Err(error) = start(rooms, &mut turns).await {
            tracing::warn!(%error, "what pushers have to tell could not be read");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::select! {
            Some(_) = turns.join_next() => {}
            () = push.wake.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Starts turns for pushers that are due, as far as there are places.
async fn start(rooms: &Rooms, turns: &mut JoinSet<()>) -> Result<(), Error> {
    let push = &rooms.0.push;
    let (active, busy) = {
        let active = push.active();
        let mut places: HashMap<&String, usize> = HashMap::new();
        for gateway in active.values() {
            *places.entry(gateway).or_default() += 1;
        }
        let busy = places.into_iter();
        let busy = busy.filter(|(_, places)| *places >= SLOTS_A_GATEWAY);
        let busy: Vec<String> = busy.map(|(gateway, _)| gateway.clone()).collect();
        (active.keys().copied().collect::<Vec<i64>>(), busy)
    };
    let free = i64::try_from(SLOTS.saturating_sub(active.len())).unwrap_or(0);
    let shares = push.shares();
    if free == 0 || shares.is_empty() {
        return Ok(());
    }
    let mut conn = rooms.ctx().db.conn().await?;
    let found = push_queue::list_due(&mut conn, &shares, (&active, &busy), now_ms(), free).await?;
    drop(conn);
    for due in found {
        push.active().insert(due.pusher, due.gateway.clone());
        turns.spawn(run_turn(rooms.clone(), due));
    }
    Ok(())
}

async fn run_turn(rooms: Rooms, due: Due) {
    if let Err(error) = turn(&rooms, &due).await {
        tracing::warn!(%error, "a pusher did not get its turn");
        // It is still due.
        tokio::time::sleep(LOOK_EVERY).await;
    }
    rooms.0.push.active().remove(&due.pusher);
}

/// How a notice fared.
enum Sent {
    Taken,
    /// The gateway does not know the push key.
    Rejected,
    Failed,
}

async fn turn(rooms: &Rooms, due: &Due) -> Result<(), Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let waiting = push_queue::list(&mut conn, (due.pusher, due.user), ROWS_MAX).await?;
    drop(conn);
    let since = now_ms() - KEEP_MS;
    let live: Vec<&Waiting> = waiting
        .iter()
        .filter(|row| !row.over && row.ts > since)
        .collect();
    let mut told = due.told;
    if !live.is_empty() || due.recount {
        let unread = badge(rooms, due.user).await?;
        let notices = notice::of(rooms, due, &live, unread).await?;
        let notices = if notices.is_empty() && is_moved(told, unread) {
            vec![(0, notice::badge(due, unread))]
        } else {
            notices
        };
        if !tell(rooms, due, notices).await? {
            return Ok(());
        }
        told = Some(unread);
    }
    let mut conn = rooms.ctx().db.conn().await?;
    if let Some(last) = waiting.last() {
        push_queue::delete(&mut conn, due.pusher, last.pos).await?;
    }
    let done = Done {
        rev: due.rev,
        more: i64::try_from(waiting.len()).is_ok_and(|count| count >= ROWS_MAX),
        told,
    };
    push_queue::update_done(&mut conn, due.pusher, done, now_ms()).await?;
    Ok(())
}

/// Whether a gateway has to be told of a count that no event goes with.
fn is_moved(told: Option<i32>, unread: i32) -> bool {
    told.unwrap_or(0) != unread
}

/// Sends notices in order; `false`: that is the end of this turn, and the pusher stands as it has to.
async fn tell(rooms: &Rooms, due: &Due, notices: Vec<(i64, Notice)>) -> Result<bool, Error> {
    let mut noted = Instant::now();
    let mut upto = 0;
    let count = notices.len();
    for (place, (pos, notice)) in notices.into_iter().enumerate() {
        let is_ours = rooms.0.push.shares.has(i32::from(due.share));
        let sent = if is_ours {
            Some(send(rooms, due, &notice).await)
        } else {
            // Another node goes on.
            None
        };
        if matches!(sent, Some(Sent::Taken)) {
            upto = pos;
            if noted.elapsed() < NOTE_EVERY || place + 1 == count {
                continue;
            }
            noted = Instant::now();
        }
        let mut conn = rooms.ctx().db.conn().await?;
        if upto != 0 {
            push_queue::delete(&mut conn, due.pusher, upto).await?;
        }
        match sent {
            Some(Sent::Taken) => continue,
            Some(Sent::Rejected) => {
                push_queue::delete_rejected(&mut conn, due.pusher, due.set_ts).await?;
            }
            Some(Sent::Failed) => {
                let now = now_ms();
                let times = (now, now + pause_ms(due.failures));
                push_queue::update_failed(&mut conn, due.pusher, times, WAITING_MAX).await?;
            }
            None => {}
        }
        return Ok(false);
    }
    Ok(true)
}

/// The pause after some failures, with jitter: pushers that failed together do not all come back
/// together.
pub(super) fn pause_ms(failures: i32) -> i64 {
    let doublings = failures.clamp(0, DOUBLINGS_MAX);
    let pause = (PAUSE_FIRST_MS << doublings).min(PAUSE_LONGEST_MS);
    rand::random_range(pause * 4 / 5..=pause)
}

async fn send(rooms: &Rooms, due: &Due, notice: &Notice) -> Sent {
    #[derive(Deserialize)]
    struct Data {
        url: Url,
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        rejected: Vec<String>,
    }
    let ctx = rooms.ctx();
    let Ok(Data { url }) = serde_json::from_str(&due.data) else {
        return Sent::Failed;
    };
    let body = notice.0.to_string();
    let allow_http = ctx.config.push.allow_http;
    let answer = ctx.federation.notify_gateway(&url, allow_http, body).await;
    let result = if answer.is_ok() { "ok" } else { "failed" };
    metrics::counter!("push_notices_sent_total", "result" => result).increment(1);
    match answer {
        Ok(answer) => {
            // What is no JSON rejects nothing.
            let answer = serde_json::from_slice::<Answer>(&answer);
            let rejected = answer.map(|answer| answer.rejected).unwrap_or_default();
            if rejected.contains(&due.pushkey) {
                tracing::info!(gateway = due.gateway, "a push gateway rejects a push key");
                Sent::Rejected
            } else {
                Sent::Taken
            }
        }
        Err(error) => {
            tracing::debug!(%error, gateway = due.gateway, failures = due.failures, "a push gateway did not take a notice");
            Sent::Failed
        }
    }
}

/// What the app shows at its icon: rooms with something unread, or what is unread in them, and
/// invitations.
async fn badge(rooms: &Rooms, user: UserNid) -> Result<i32, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let (joined, inviters) = push_queue::list_rooms(&mut conn, user).await?;
    let parts = unread::list(&mut conn, user, &joined).await?;
    let wishes = Wishes::read(&mut conn, user).await?;
    drop(conn);
    let inviters = rooms.ctx().db.ids.user_ids_of(&inviters).await?;
    let invited = inviters
        .iter()
        .filter(|by| wishes.want_invitation(by))
        .count();
    let mut by_room: HashMap<i64, i64> = HashMap::new();
    for part in parts {
        *by_room.entry(part.room.0).or_default() += part.notify.max(0);
    }
    let counts = by_room.into_values();
    let unread: i64 = if rooms.ctx().config.push.group_unread_count_by_room {
        counts.map(|count| i64::from(count > 0)).sum()
    } else {
        counts.sum()
    };
    let invited = i64::try_from(invited).unwrap_or(i64::MAX);
    Ok(i32::try_from(unread.saturating_add(invited)).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::{PAUSE_LONGEST_MS, is_moved, pause_ms};

    #[test]
    fn pauses_grow_to_an_hour() {
        assert!((800..=1_000).contains(&pause_ms(0)));
        assert!((3_200..=4_000).contains(&pause_ms(2)));
        for failures in [12, 1_001, i32::MAX] {
            assert!((PAUSE_LONGEST_MS * 4 / 5..=PAUSE_LONGEST_MS).contains(&pause_ms(failures)));
        }
    }

    #[test]
    fn a_gateway_that_was_told_nothing_shows_nothing() {
        assert!(!is_moved(None, 0));
        assert!(is_moved(None, 1) && is_moved(Some(1), 0));
        assert!(!is_moved(Some(3), 3));
    }
}
