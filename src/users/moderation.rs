//! Measures of administrators against accounts: locked ones are refused, suspended ones read and do not act
//! (specification, "Account locking", "Account suspension", "Server administration").

use ruma::UserId;
use serde_json::{Value, json};

use super::{Error, tokens::Session};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, users::Account},
};

/// What an account may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Whatever it wants.
    #[default]
    Open,
    /// Read.
    Suspended,
    /// Nothing but log out.
    Locked,
}

impl Standing {
    /// Of what is stored; being locked is the stronger one.
    pub fn of(locked: bool, suspended: bool) -> Self {
        match (locked, suspended) {
            (true, _) => Self::Locked,
            (false, true) => Self::Suspended,
            (false, false) => Self::Open,
        }
    }
}

/// What is done to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Its sessions are refused until it is unlocked; they and the keys stay.
    Lock,
    /// It may read and not act.
    Suspend,
}

impl Measure {
    fn is_in_force(self, account: &Account) -> bool {
        match self {
            Self::Lock => account.locked,
            Self::Suspend => account.suspended,
        }
    }
}

/// Whether a measure is in force against a user.
pub async fn find(ctx: &Context, by: &Session, user: &UserId, it: Measure) -> Result<bool, Error> {
    let (nid, account) = account(ctx, user).await?;
    if account.admin && nid != by.user_nid {
        return Err(Error::Forbidden("the user is an administrator as well"));
    }
    Ok(it.is_in_force(&account))
}

/// Takes a measure or (`false`) ends it. Every node hears of it, and waiting requests of the user end;
/// returns whose account it is.
pub async fn set(
    ctx: &Context,
    by: &Session,
    user: &UserId,
    (it, on): (Measure, bool),
) -> Result<UserNid, Error> {
    let (nid, account) = account(ctx, user).await?;
    if nid == by.user_nid {
        return Err(Error::Forbidden("nobody does that to themselves"));
    }
    if account.admin {
        return Err(Error::Forbidden("the user is an administrator as well"));
    }
    if it.is_in_force(&account) == on {
        return Ok(nid);
    }
    let ts = on.then(now_ms);
    let mut tx = ctx.db.begin().await?;
    match it {
        Measure::Lock => {
            storage::moderation::update_locked(&mut tx, nid, ts).await?;
            if !on {
                storage::push_queue::wake_user(&mut tx, nid, now_ms()).await?;
            }
        }
        Measure::Suspend => storage::moderation::update_suspended(&mut tx, nid, ts).await?,
    }
    tx.log(super::tokens::invalid_entry(nid)).await?;
    tx.commit().await?;
    tracing::info!(user = %user, by = %by.user_id, measure = ?it, on, "an account was moderated");
    Ok(nid)
}

/// Whether a user is a server administrator.
pub async fn is_admin(ctx: &Context, user: &UserId) -> Result<bool, Error> {
    Ok(account(ctx, user).await?.1.admin)
}

/// Makes a user a server administrator, or makes one none. Returns whose account it is.
pub async fn set_admin(
    ctx: &Context,
    by: &Session,
    user: &UserId,
    admin: bool,
) -> Result<UserNid, Error> {
    check_demotion(by, user, admin)?;
    let (nid, account) = account(ctx, user).await?;
    if account.admin == admin {
        return Ok(nid);
    }
    let mut tx = ctx.db.begin().await?;
    storage::users::update_admin(&mut tx, nid, admin).await?;
    tx.log(super::tokens::invalid_entry(nid)).await?;
    tx.commit().await?;
    tracing::info!(user = %user, by = %by.user_id, admin, "an administrator was made or unmade");
    Ok(nid)
}

/// Somebody else has to take it from an administrator: else none may be left (text as in Synapse).
pub(super) fn check_demotion(by: &Session, user: &UserId, admin: bool) -> Result<(), Error> {
    if !admin && by.user_id == user {
        return Err(Error::Invalid("You may not demote yourself."));
    }
    Ok(())
}

/// Events a second and at once that a user may send, where that is not as for everybody.
pub async fn limit(ctx: &Context, user: &UserId) -> Result<Option<(i32, i32)>, Error> {
    let (nid, _) = account(ctx, user).await?;
    let mut conn = ctx.db.conn().await?;
    Ok(storage::users::find_limit(&mut conn, nid).await?)
}

/// Sets them (`None`: as for everybody). Who may send 0 a second is held to no limits (Synapse).
/// Returns whose they are.
pub async fn set_limit(
    ctx: &Context,
    user: &UserId,
    limit: Option<(i32, i32)>,
) -> Result<UserNid, Error> {
    let (nid, _) = account(ctx, user).await?;
    let mut tx = ctx.db.begin().await?;
    storage::users::update_limit(&mut tx, nid, limit).await?;
    tx.log(super::tokens::invalid_entry(nid)).await?;
    tx.commit().await?;
    Ok(nid)
}

/// An account of ours that is open. Who asks was checked before: nobody else learns who exists.
async fn account(ctx: &Context, user: &UserId) -> Result<(UserNid, Account), Error> {
    if user.server_name() != ctx.server_name() {
        return Err(Error::Invalid("the user is not of this server"));
    }
    let nid = ctx.db.ids.find_user(user).await?;
    let nid = nid.ok_or(Error::NotFound("user"))?;
    let mut conn = ctx.db.conn().await?;
    let account = storage::users::find(&mut conn, nid).await?;
    let account = account.filter(|account| !account.deactivated);
    Ok((nid, account.ok_or(Error::NotFound("user"))?))
}

/// Devices of a user with the last request of each (specification, "whois").
pub async fn whois(ctx: &Context, user: &UserId) -> Result<Value, Error> {
    let (nid, _) = account(ctx, user).await?;
    let mut conn = ctx.db.conn().await?;
    let devices = storage::devices::list(&mut conn, nid).await?;
    let devices = devices.into_iter().map(|device| {
        let seen = device.last_seen_ts.map(|ts| {
            json!({
                "ip": device.last_seen_ip.unwrap_or_default(),
                "last_seen": ts,
                "user_agent": device.last_seen_agent.unwrap_or_default(),
            })
        });
        let connections: Vec<Value> = seen.into_iter().collect();
        let sessions = json!([{ "connections": connections }]);
        (device.device_id, json!({ "sessions": sessions }))
    });
    let devices: serde_json::Map<String, Value> = devices.collect();
    Ok(json!({ "user_id": user, "devices": devices }))
}
