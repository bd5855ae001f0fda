//! Work by the clock: what is over is swept, what is typed no more ends, news goes to peers.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::broadcast::error::{RecvError, TryRecvError},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::now_ms,
    context::Context,
    devices,
    federation::sender::Sender,
    media::{Media, freeing, references, thumbnail},
    rooms::{
        self, News, Rooms, delayed, deletion, feed, guests, inbox, partial, presence, purge, push,
        search, user_directory,
    },
    storage::{self, LogKind, LogRow},
    users::{
        oauth,
        seen::{self, Seen},
        validation, validity,
    },
};

/// How long it is known what became of delayed events.
const KEEP_DELAYED_MS: i64 = 86_400_000;
/// How long a connection of sliding sync may be unused.
const KEEP_CONNECTIONS_MS: i64 = 30 * 86_400_000;
/// How long it is kept from where and with what a device was last used.
const KEEP_ADDRESSES_MS: i64 = 28 * 86_400_000;
/// How long one-time keys that were given are known as such: clients repeat an upload that failed
/// within less.
const KEEP_GIVEN_MS: i64 = 7 * 86_400_000;
/// How long a client transaction is remembered, and a log row kept.
const KEEP_MS: i64 = 48 * 3_600_000;
/// How long every event is kept ready for peers and application services that are away; after that,
/// for peers, the newest of each room.
const KEEP_OUTBOX_MS: i64 = 14 * 24 * 3_600_000;
/// How long a peer's transaction is remembered.
const KEEP_RECEIVED_MS: i64 = 24 * 3_600_000;
/// How long the end of an ordered deletion of a room can be asked for.
const KEEP_DELETIONS_MS: i64 = 24 * 3_600_000;
/// Rows deleted at once.
const SWEEP_ROWS: i64 = 5_000;

/// Starts all jobs; they end with `stop`.
pub fn start(
    (rooms, media): (&Rooms, &Media),
    sender: &Sender,
    seen: &Seen,
    stop: &CancellationToken,
) {
    let spawn = |job: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(job).await });
    };
    spawn(Box::pin(sweep(rooms.clone())));
    spawn(Box::pin(free_media(media.clone())));
    spawn(Box::pin(thumbnail::make_usual(media.clone())));
    spawn(Box::pin(read_references(media.clone())));
    spawn(Box::pin(write_seen(rooms.clone(), seen.clone())));
    spawn(Box::pin(partial::look_after(rooms.clone())));
    spawn(Box::pin(inbox::look_after(rooms.clone())));
    spawn(Box::pin(free_rooms(rooms.clone())));
    spawn(Box::pin(delete_rooms(rooms.clone())));
    spawn(Box::pin(expire_typing(rooms.clone())));
    spawn(Box::pin(tell_peers(rooms.clone(), sender.clone())));
    spawn(Box::pin(presence::look_after(rooms.clone())));
    spawn(Box::pin(tell_presence(rooms.clone(), sender.clone())));
    spawn(Box::pin(resync_devices(rooms.clone())));
    spawn(Box::pin(drop_messages(rooms.clone())));
    spawn(Box::pin(keep_directory(rooms.clone())));
    spawn(Box::pin(enter_words(rooms.clone())));
    spawn(Box::pin(relate_old(rooms.clone())));
    spawn(Box::pin(redact_related(rooms.clone())));
    spawn(Box::pin(owe_sticky(rooms.clone())));
    spawn(Box::pin(delayed::run(rooms.clone())));
    spawn(Box::pin(guests::run(rooms.clone())));
    spawn(Box::pin(mail_ending(rooms.ctx().clone())));
    spawn(Box::pin(feed::run(rooms.clone())));
    spawn(Box::pin(push::run(rooms.clone())));
}

/// Frees what media nobody needs any more take.
async fn free_media(media: Media) {
    loop {
        freeing::wait(&media).await;
        if let Err(error) = freeing::sweep(&media).await {
            tracing::warn!(%error, "files of media that are over were not deleted");
        }
    }
}

/// Writes when devices were last used.
async fn write_seen(rooms: Rooms, seen: Seen) {
    loop {
        tokio::time::sleep(seen::EVERY).await;
        if let Err(error) = seen.write(rooms.ctx()).await {
            tracing::warn!(%error, "when devices were last used was not written");
        }
    }
}

/// How often it is looked whose account ends soon.
const VALIDITY_EVERY: Duration = Duration::from_mins(5);

/// Mails those whose accounts end soon.
async fn mail_ending(ctx: Context) {
    if ctx.config.account_validity.is_none() {
        return;
    }
    loop {
        if let Err(error) = validity::advance(&ctx).await {
            tracing::warn!(%error, "nobody is mailed whose account ends");
        }
        tokio::time::sleep(VALIDITY_EVERY).await;
    }
}

/// Does one piece of work after the other as long as there is any (`advance` tells), and looks for more
/// after a while. `problem`: what it means that one failed.
async fn work_off<F, E>(every: Duration, problem: &'static str, advance: impl Fn() -> F)
where
    F: Future<Output = Result<bool, E>>,
    E: std::fmt::Display,
{
    loop {
        match advance().await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "{problem}"),
        }
        tokio::time::sleep(every).await;
    }
}

/// How often rooms are looked for whose older events are to be looked through: another node may have
/// begun with one and not come to its end.
const RELATE_EVERY: Duration = Duration::from_mins(10);

/// Writes the relations of events from before relations were kept.
async fn relate_old(rooms: Rooms) {
    let problem = "relations of older events were not written";
    let advance = || rooms::relations::old::advance(&rooms);
    work_off(RELATE_EVERY, problem, advance).await;
}

/// Reads which media events from before references were kept name.
async fn read_references(media: Media) {
    let problem = "it is not known which media older events name";
    work_off(RELATE_EVERY, problem, || references::read_old(&media)).await;
}

/// How often the user directory looks for what to do when nothing happens.
const DIRECTORY_EVERY: Duration = Duration::from_secs(1);

/// Keeps the user directory up to date.
async fn keep_directory(rooms: Rooms) {
    let mut rows = rooms.ctx().db.stream.subscribe();
    loop {
        match user_directory::advance(&rooms).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the user directory does not follow");
                tokio::time::sleep(DIRECTORY_EVERY).await;
            }
        }
        let wait = tokio::time::timeout(DIRECTORY_EVERY, rows.recv()).await;
        if matches!(wait, Ok(Err(RecvError::Closed))) {
            return;
        }
    }
}

/// How long words wait to be entered, so that many are entered together.
const WORDS_EVERY: Duration = Duration::from_secs(1);

/// Enters what can be searched.
async fn enter_words(rooms: Rooms) {
    loop {
        match search::advance(&rooms).await {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => tracing::warn!(%error, "what was written cannot be searched yet"),
        }
        tokio::time::sleep(WORDS_EVERY).await;
    }
}

/// How often it is looked what is to be redacted with other events.
const REDACT_EVERY: Duration = Duration::from_secs(1);

/// Redacts what relates to redacted events, where somebody asks for that.
async fn redact_related(rooms: Rooms) {
    let problem = "what relates to redacted events is not redacted";
    let advance = || rooms::relations::redaction::advance(&rooms);
    work_off(REDACT_EVERY, problem, advance).await;
}

/// How often it is looked who has come into a room and is owed what is sticky there.
const STICKY_EVERY: Duration = Duration::from_secs(2);

/// Owes servers that have come into rooms what of ours is sticky there.
async fn owe_sticky(rooms: Rooms) {
    loop {
        tokio::time::sleep(STICKY_EVERY).await;
        if let Err(error) = rooms::sticky::owe(&rooms).await {
            tracing::warn!(%error, "servers that have come are not sent what is sticky");
        }
    }
}

/// How often device lists that could not be fetched are looked for when nothing happens.
const RESYNC_EVERY: Duration = Duration::from_mins(1);

/// Fetches device lists of peers that are old, so that the next question finds them.
async fn resync_devices(rooms: Rooms) {
    let mut rows = rooms.ctx().db.stream.subscribe();
    loop {
        let wait = tokio::time::timeout(RESYNC_EVERY, rows.recv()).await;
        match wait {
            Ok(Ok(batch)) if !batch.iter().any(|row| row.kind == LogKind::DeviceList) => continue,
            Ok(Err(RecvError::Closed)) => return,
            Ok(Ok(_) | Err(RecvError::Lagged(_))) | Err(_) => {}
        }
        if let Err(error) = devices::lists::resync(rooms.ctx()).await {
            tracing::warn!(%error, "device lists could not be fetched");
        }
    }
}

/// How often messages are looked for that wait for peers for too long.
const DROP_EVERY: Duration = Duration::from_mins(10);

/// Drops messages for peers that do not come back.
async fn drop_messages(rooms: Rooms) {
    loop {
        if let Err(error) = devices::to_device::drop_old(rooms.ctx()).await {
            tracing::warn!(%error, "messages for peers that do not come back were not dropped");
        }
        tokio::time::sleep(DROP_EVERY).await;
    }
}

async fn free_rooms(rooms: Rooms) {
    purge::run(&rooms).await;
}

async fn delete_rooms(rooms: Rooms) {
    deletion::run(&rooms).await;
}

async fn expire_typing(rooms: Rooms) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rooms.typing().expire();
    }
}

/// Sends typing and receipts to the servers in their room.
async fn tell_peers(rooms: Rooms, sender: Sender) {
    let mut news = rooms.news();
    loop {
        match news.recv().await {
            Ok(News { room, about, edu }) => match servers(&rooms, room).await {
                Ok(servers) => sender.edu(&servers, &about, &edu).await,
                Err(error) => tracing::warn!(%error, "news for peers were not sent"),
            },
            Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "news for peers were lost"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// How often peers are told of presence: what changes in between goes in one EDU.
const PRESENCE_EVERY: Duration = Duration::from_secs(1);

/// A server that comes into a room may not know yet that it is in it when it is told who is there,
/// and not believe it: it is told once more after this.
const AGAIN_AFTER: Duration = Duration::from_secs(15);
/// Times at which servers came that are to be told again.
const NEWCOMERS_MAX: usize = 100;

/// Sends presence to the servers that share a room with the users.
async fn tell_presence(rooms: Rooms, sender: Sender) {
    let config = &rooms.ctx().config.presence;
    if !(config.enabled && config.federation) {
        return;
    }
    let mut log = rooms.ctx().db.stream.subscribe();
    let mut again: VecDeque<(Instant, Vec<LogRow>)> = VecDeque::new();
    loop {
        tokio::time::sleep(PRESENCE_EVERY).await;
        let mut rows = Vec::new();
        loop {
            match log.try_recv() {
                Ok(batch) => {
                    let events = batch.iter().filter(|row| row.kind == LogKind::Event);
                    rows.extend(events.copied());
                }
                // Who came meanwhile hears of our users when they change.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => return,
            }
        }
        let has_told = send(presence::edus_for_newcomers(&rooms, &rows).await, &sender).await;
        if has_told && again.len() < NEWCOMERS_MAX {
            again.push_back((Instant::now() + AGAIN_AFTER, rows));
        }
        if let Some((_, rows)) = again.pop_front_if(|(due, _)| *due <= Instant::now()) {
            send(presence::edus_for_newcomers(&rooms, &rows).await, &sender).await;
        }
        send(presence::edus(&rooms).await, &sender).await;
    }
}

/// Hands EDUs out; whether there were any.
async fn send(edus: Result<Vec<presence::Outgoing>, rooms::Error>, sender: &Sender) -> bool {
    match edus {
        Ok(edus) => {
            let any = !edus.is_empty();
            for (server, about, edu) in edus {
                sender.edu(&[server], &about, &edu).await;
            }
            any
        }
        Err(error) => {
            tracing::warn!(%error, "presence was not sent to peers");
            false
        }
    }
}

async fn servers(
    rooms: &Rooms,
    room: storage::RoomNid,
) -> Result<Vec<storage::ServerNid>, storage::Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    storage::memberships::list_servers(&mut conn, room).await
}

async fn sweep(rooms: Rooms) {
    loop {
        tokio::time::sleep(Duration::from_mins(10)).await;
        if let Err(error) = sweep_once(&rooms).await {
            tracing::warn!(%error, "sweeping");
        }
    }
}

async fn sweep_once(rooms: &Rooms) -> Result<(), storage::Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let now = now_ms();
    storage::users::delete_old_uia(&mut conn, now - 3_600_000).await?;
    while storage::events::delete_old_txns(&mut conn, now - KEEP_MS, SWEEP_ROWS).await? > 0 {}
    while storage::to_device::delete_txns(&mut conn, now - KEEP_MS, SWEEP_ROWS).await? > 0 {}
    let given = now - KEEP_GIVEN_MS;
    while storage::device_keys::delete_given(&mut conn, given, SWEEP_ROWS).await? > 0 {}
    while storage::openid_tokens::delete_expired(&mut conn, now, SWEEP_ROWS).await? > 0 {}
    while storage::login_tokens::delete_expired(&mut conn, now, SWEEP_ROWS).await? > 0 {}
    while storage::sso::delete_expired(&mut conn, now, SWEEP_ROWS).await? > 0 {}
    let kept = now - rooms::unredacted::keep_ms(rooms);
    while storage::unredacted::delete_before(&mut conn, kept, SWEEP_ROWS).await? > 0 {}
    while oauth::sweep(&mut conn, now, SWEEP_ROWS).await? > 0 {}
    let unseen = now - KEEP_ADDRESSES_MS;
    while storage::devices::forget_seen(&mut conn, unseen, SWEEP_ROWS).await? > 0 {}
    let asked = (now - validation::KEEP_MS, now);
    while storage::validations::delete_before(&mut conn, asked, SWEEP_ROWS).await? > 0 {}
    while storage::pending_accounts::delete_over(&mut conn, now, SWEEP_ROWS).await? > 0 {}
    let told = now - push::MAIL_KEEP_MS;
    while storage::mail_rooms::delete_before(&mut conn, told, SWEEP_ROWS).await? > 0 {}
    while storage::rendezvous::delete_expired(&mut conn, now, SWEEP_ROWS).await? > 0 {}
    let over = now - KEEP_DELAYED_MS;
    while storage::delayed_events::delete_finalised(&mut conn, over, SWEEP_ROWS).await? > 0 {}
    let unused = now - KEEP_CONNECTIONS_MS;
    while storage::sliding::delete_unused(&mut conn, unused, SWEEP_ROWS).await? > 0 {}
    while storage::sticky::delete_over(&mut conn, now, SWEEP_ROWS).await? > 0 {}
    storage::room_deletions::delete_done(&mut conn, now - KEEP_DELETIONS_MS).await?;
    let untold = now - push::KEEP_MS;
    while storage::push_queue::delete_before(&mut conn, untold, SWEEP_ROWS).await? > 0 {}
    let received = now - KEEP_RECEIVED_MS;
    while storage::outbox::delete_received(&mut conn, received, SWEEP_ROWS).await? > 0 {}
    sweep_stream(&mut conn, rooms.ctx().db.stream.horizon(), now).await
}

/// Log and outbox know positions only: marks tell which one was reached when.
async fn sweep_stream(
    conn: &mut sqlx::PgConnection,
    horizon: storage::Pos,
    now: i64,
) -> Result<(), storage::Error> {
    use storage::keeping;
    keeping::insert_mark(conn, now, horizon).await?;
    if let Some(pos) = keeping::find_mark(conn, now - KEEP_MS).await? {
        while storage::stream::delete_before(conn, pos, SWEEP_ROWS).await? > 0 {}
    }
    if let Some(pos) = keeping::find_mark(conn, now - KEEP_OUTBOX_MS).await? {
        while keeping::delete_outbox(conn, pos, SWEEP_ROWS).await? > 0 {}
        while storage::appservices::delete_before(conn, pos, SWEEP_ROWS).await? > 0 {}
    }
    keeping::delete_marks(conn, now - 2 * KEEP_OUTBOX_MS).await
}
