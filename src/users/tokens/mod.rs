//! Sessions: access and refresh tokens.

mod granting;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use tokio::sync::{Notify, broadcast::error::RecvError};

pub use self::granting::{Cause, Granted, fresh_device_id};
pub(super) use self::granting::{fresh, hash};
use super::{Error, announce, moderation::Standing, terms};
use crate::{
    clock::now_ms,
    config::Appservice,
    context::Context,
    storage::{self, LogEntry, LogKind, UserNid},
};

/// How long a node trusts what it knows of a token without asking the database.
const CACHED: Duration = Duration::from_mins(1);
/// How long access tokens are known as over that have a successor: a request may be on its way with one, and
/// its client has to hear that the session goes on.
const KEEP_OVER_MS: i64 = 3_600_000;
/// Tokens known to a node.
const CACHED_MAX: u64 = 100_000;
/// Users who waited once that are kept in mind; beyond that, those who wait.
const WAITING_MAX: usize = 50_000;

/// Who asks.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts about an account, each for itself"
)]
pub struct Session {
    /// User.
    pub user_id: OwnedUserId,
    /// The same, interned.
    pub user_nid: UserNid,
    /// Device.
    pub device_id: OwnedDeviceId,
    /// The same, as a number.
    pub device_no: i32,
    /// Server administrator.
    pub admin: bool,
    /// What the account may do.
    pub standing: Standing,
    /// A guest.
    pub guest: bool,
    /// Whether it was opened by OAuth 2.0: what is weighty is done in a browser then.
    pub oauth: bool,
    /// Whether the user has not accepted the terms, where somebody has to know that.
    pub owes_terms: bool,
    /// When the account ends, in milliseconds; `None`: never.
    pub valid_until_ts: Option<i64>,
    /// Events a second and at once that it may send, where an administrator said so; 0 a second: it is
    /// held to no limits.
    pub limit: Option<(i32, i32)>,
    /// The application service that speaks for the user. Where it names no device, `device_id` is
    /// empty and `device_no` 0, which is none.
    pub appservice: Option<Arc<Appservice>>,
    expires_ts: Option<i64>,
}

impl Session {
    /// The user, and the application service that speaks for it.
    pub fn asking(&self) -> (&UserId, Option<&Appservice>) {
        (&self.user_id, self.appservice.as_deref())
    }

    /// The time that an event claims to be of, which application services alone may say.
    pub fn ts(&self, asked: Option<i64>) -> Option<i64> {
        asked.filter(|_| self.appservice.is_some())
    }

    /// Whether the user is held to the rate limits.
    pub fn is_limited(&self) -> bool {
        let service = self.appservice.as_ref();
        service.is_none_or(|service| service.limits(&self.user_id))
    }
}

/// What a token turned out to be.
#[derive(Clone, Debug)]
pub enum Found {
    /// A session.
    Valid(Arc<Session>),
    /// A session whose access token is over; refreshing it goes on.
    Expired,
    /// Nothing.
    Unknown,
}

/// Sessions by token. One for each node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    ctx: Context,
    known: Cache<[u8; 32], Arc<Session>>,
    /// Counts what was invalidated: what was read before is not kept.
    turn: Arc<AtomicU64>,
    /// By user: wakes requests that wait, when sessions of the user may have ended.
    waiting: Arc<Mutex<HashMap<UserNid, Weak<Notify>>>>,
}

impl Tokens {
    /// Starts to follow what other nodes invalidate.
    pub fn start(ctx: Context) -> Self {
        let known = Cache::builder()
            .max_capacity(CACHED_MAX)
            .time_to_live(CACHED)
            .support_invalidation_closures()
            .build();
        let tokens = Self {
            ctx,
            known,
            turn: Arc::default(),
            waiting: Arc::default(),
        };
        tokio::spawn(follow(tokens.clone()));
        tokens
    }

    /// The session of an access token. No query where this node knows it.
    pub async fn find(&self, token: &str) -> Result<Found, Error> {
        let key = hash(token);
        if let Some(session) = self.known.get(&key) {
            return Ok(valid(session));
        }
        let turn = self.turn();
        let mut conn = self.ctx.db.conn().await?;
        let Some(row) = storage::tokens::find(&mut conn, &key).await? else {
            return Ok(Found::Unknown);
        };
        if row.expires_ts.is_some() {
            let over = now_ms() - KEEP_OVER_MS;
            storage::tokens::update_used(&mut conn, &key, over).await?;
        }
        let user_nid = UserNid(row.user_nid);
        let owes_terms = terms::is_owed(&self.ctx, &mut conn, user_nid).await?;
        drop(conn);
        let has_end = self.ctx.config.account_validity.is_some();
        let session = Arc::new(Session {
            user_id: self.ctx.db.ids.user_id(user_nid).await?,
            user_nid,
            device_id: row.device_id.into(),
            device_no: row.device_no,
            admin: row.admin,
            standing: Standing::of(row.locked, row.suspended),
            guest: row.guest,
            oauth: row.oauth,
            owes_terms,
            valid_until_ts: row.valid_until_ts.filter(|_| has_end),
            limit: row.limit_per_second.zip(row.limit_burst),
            appservice: None,
            expires_ts: row.expires_ts,
        });
        self.keep(key, &session, turn);
        Ok(valid(session))
    }

    /// The session of an application service that speaks for a user of its (`None`: its own) and
    /// perhaps a device (specification, "Identity assertion").
    pub async fn of_appservice(
        &self,
        service: &Arc<Appservice>,
        user: Option<&UserId>,
        device_id: Option<&str>,
    ) -> Result<Arc<Session>, Error> {
        let user = user.unwrap_or(&service.sender);
        if !service.has_user(user) {
            return Err(Error::Forbidden(
                "the application service may not speak for that user",
            ));
        }
        let parts = [service.id.as_str(), user.as_str(), device_id.unwrap_or("")];
        let key = hash(&serde_json::json!(parts).to_string());
        if let Some(session) = self.known.get(&key) {
            return Ok(session);
        }
        let unknown = Error::Forbidden("the application service has not registered that user");
        let Some(user_nid) = self.ctx.db.ids.find_user(user).await? else {
            return Err(unknown);
        };
        let turn = self.turn();
        let mut conn = self.ctx.db.conn().await?;
        let account = storage::users::find(&mut conn, user_nid).await?;
        let Some(account) = account.filter(|account| !account.deactivated) else {
            return Err(unknown);
        };
        let device = match device_id {
            Some(id) => {
                let device = storage::devices::find(&mut conn, user_nid, id).await?;
                Some(device.ok_or(Error::UnknownDevice)?)
            }
            None => None,
        };
        let session = Arc::new(Session {
            user_id: user.to_owned(),
            user_nid,
            device_id: device.as_ref().map_or("", |it| &it.device_id).into(),
            device_no: device.as_ref().map_or(0, |it| it.device_no),
            admin: account.admin,
            standing: Standing::of(account.locked, account.suspended),
            guest: false,
            oauth: false,
            owes_terms: false,
            valid_until_ts: None,
            limit: None,
            appservice: Some(service.clone()),
            expires_ts: None,
        });
        self.keep(key, &session, turn);
        Ok(session)
    }

    /// Keeps a session in mind, unless sessions ended since it was read.
    fn keep(&self, key: [u8; 32], session: &Arc<Session>, turn: u64) {
        self.known.insert(key, session.clone());
        if self.turn() != turn {
            self.known.invalidate(&key);
        }
    }

    /// Counts what ended; asked for before a session is found, for [`Self::until_ended`].
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Waits until a session, found after a `turn`, is no longer good: requests that wait for news
    /// are cut off by that.
    pub async fn until_ended(&self, session: &Session, mut turn: u64) -> Result<(), Error> {
        let notify = self.waits(session.user_nid);
        loop {
            // Made before looking: what happens in between wakes it.
            let ended = notify.notified();
            let now = self.turn();
            if now != turn && session.appservice.is_none() {
                turn = now;
                // In a box: all who wait would hold it else.
                if !Box::pin(self.is_open(session)).await? {
                    return Ok(());
                }
            }
            ended.await;
        }
    }

    /// Whether a device still has a session that its account may use.
    async fn is_open(&self, session: &Session) -> Result<bool, Error> {
        let mut conn = self.ctx.db.conn().await?;
        let device = (session.user_nid, session.device_no);
        let validity = self.ctx.config.account_validity;
        let now_ms = validity.map(|_| now_ms());
        Ok(storage::tokens::is_open(&mut conn, device, now_ms).await?)
    }

    /// What wakes who waits as a user.
    fn waits(&self, user: UserNid) -> Arc<Notify> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(&user).and_then(Weak::upgrade) {
            return notify;
        }
        if waiting.len() >= WAITING_MAX {
            waiting.retain(|_, notify| notify.strong_count() > 0);
        }
        let notify = Arc::new(Notify::new());
        waiting.insert(user, Arc::downgrade(&notify));
        notify
    }

    /// Ends devices with their sessions, keys and queues.
    pub async fn end(&self, user: UserNid, devices: &[i32]) -> Result<(), Error> {
        if devices.is_empty() {
            return Ok(());
        }
        let user_id = self.ctx.db.ids.user_id(user).await?;
        let mut tx = self.ctx.db.begin().await?;
        let ended = super::devices::remove(&mut tx, user, devices).await?;
        announce::deleted(&self.ctx, &mut tx, (&user_id, user), &ended).await?;
        tx.log(invalid_entry(user)).await?;
        tx.commit().await?;
        self.forget(user);
        Ok(())
    }

    /// Drops what this node knows of a user's tokens, and looks again for those who wait; other nodes
    /// do by the log.
    pub fn forget(&self, user: UserNid) {
        self.turn.fetch_add(1, Ordering::AcqRel);
        // Fails only where invalidation closures are not supported, which the builder sets.
        let _ = self
            .known
            .invalidate_entries_if(move |_, session| session.user_nid == user);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = waiting.get(&user).and_then(Weak::upgrade) {
            notify.notify_waiters();
        }
    }
}

fn valid(session: Arc<Session>) -> Found {
    if session
        .expires_ts
        .is_some_and(|expires| expires <= now_ms())
    {
        Found::Expired
    } else {
        Found::Valid(session)
    }
}

pub(super) fn invalid_entry(user: UserNid) -> LogEntry {
    LogEntry {
        kind: LogKind::Invalidate,
        room: 0,
        user: user.0,
        reference: 0,
    }
}

async fn follow(tokens: Tokens) {
    let mut rows = tokens.ctx.db.stream.subscribe();
    loop {
        match rows.recv().await {
            Ok(batch) => {
                for row in batch.iter().filter(|row| row.kind == LogKind::Invalidate) {
                    tokens.forget(UserNid(row.user));
                }
            }
            Err(RecvError::Lagged(_)) => {
                tokens.turn.fetch_add(1, Ordering::AcqRel);
                tokens.known.invalidate_all();
                let waiting = tokens
                    .waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let waiting = waiting.values().filter_map(Weak::upgrade);
                waiting.for_each(|notify| notify.notify_waiters());
            }
            Err(RecvError::Closed) => return,
        }
    }
}
