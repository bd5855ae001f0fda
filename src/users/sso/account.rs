//! The account of somebody whom an identity provider knows: found, put together, or made.

use ruma::{OwnedUserId, UserId};
use serde_json::json;

use super::{Error, IDS_MAX};
use crate::{
    clock::now_ms,
    context::Context,
    oidc::{Provider, exchange::Identity},
    storage::{self, UserNid},
    users::{self, profile, registration, threepids},
};

/// An account.
pub(super) struct Found {
    pub(super) user: OwnedUserId,
    pub(super) nid: UserNid,
    /// Whether the display name of an account that was there is another now.
    pub(super) is_renamed: bool,
}

/// The account of a person, open for a login.
pub(super) async fn of(
    ctx: &Context,
    provider: &Provider,
    identity: &Identity,
) -> Result<Found, Error> {
    let known = find(ctx, provider, identity).await?;
    let (nid, is_new) = match known {
        Some(nid) => (nid, false),
        None => first_login(ctx, provider, identity).await?,
    };
    let mut conn = ctx.db.conn().await?;
    let account = storage::users::find(&mut conn, nid).await?;
    drop(conn);
    let account = account.filter(|account| !account.deactivated);
    let account = account.ok_or(users::Error::Deactivated)?;
    if account.locked {
        return Err(users::Error::Locked.into());
    }
    let user = ctx.db.ids.user_id(nid).await?;
    let is_named = is_new || provider.config.update_profile;
    let is_changed = is_named && name(ctx, provider, &user, identity).await?;
    Ok(Found {
        user,
        nid,
        is_renamed: is_changed && !is_new,
    })
}

async fn find(
    ctx: &Context,
    provider: &Provider,
    identity: &Identity,
) -> Result<Option<UserNid>, storage::Error> {
    let mut conn = ctx.db.conn().await?;
    storage::sso::find_user(&mut conn, &provider.config.id, &identity.subject).await
}

/// The account that is somebody's from now on, and whether it is a new one.
async fn first_login(
    ctx: &Context,
    provider: &Provider,
    identity: &Identity,
) -> Result<(UserNid, bool), Error> {
    let name = provider.localpart(&identity.claims).ok_or(Error::NoName)?;
    let user = registration::user_id(ctx.server_name(), &name).map_err(|_| Error::NoName)?;
    registration::check_reserved(ctx, &user, None).map_err(|_| Error::NameTaken)?;
    match create_or_link(ctx, provider, identity, &user).await {
        // The same person may have come twice at the same time.
        Err(Error::NameTaken) => match find(ctx, provider, identity).await? {
            Some(nid) => Ok((nid, false)),
            None => Err(Error::NameTaken),
        },
        found => found,
    }
}

async fn create_or_link(
    ctx: &Context,
    provider: &Provider,
    identity: &Identity,
    user: &UserId,
) -> Result<(UserNid, bool), Error> {
    let external = (&*provider.config.id, &*identity.subject);
    if let Some(nid) = ctx.db.ids.find_user(user).await? {
        let mut conn = ctx.db.conn().await?;
        if let Some(account) = storage::users::find(&mut conn, nid).await? {
            drop(conn);
            if !provider.config.allow_existing_users {
                return Err(Error::NameTaken);
            }
            if account.deactivated {
                return Err(users::Error::Deactivated.into());
            }
            link(ctx, nid, external).await?;
            tracing::info!(user = %user, provider = external.0, "an account has an identity now");
            return Ok((nid, false));
        }
    }
    if !provider.config.enable_registration {
        return Err(Error::NoAccount);
    }
    let address = provider.address(&identity.claims);
    let address = address.and_then(|address| threepids::canonical(address).ok());
    let address = address.as_deref().map(|address| (address, now_ms()));
    let made = match registration::create_external(ctx, user, address, external).await {
        // Somebody else has the address; the account is made all the same.
        Err(users::Error::AddressInUse) => {
            registration::create_external(ctx, user, None, external).await
        }
        made => made,
    };
    match made {
        Ok(nid) => {
            tracing::info!(user = %user, provider = external.0, "an account was made");
            Ok((nid, true))
        }
        Err(users::Error::NameTaken) => Err(Error::NameTaken),
        Err(error) => Err(error.into()),
    }
}

/// An account that was there becomes somebody's. Where it is another person's at the same provider, the
/// name was given anew there after somebody had left: the account is not theirs.
async fn link(ctx: &Context, nid: UserNid, external: (&str, &str)) -> Result<(), Error> {
    let mut tx = ctx.db.begin().await?;
    let ids = storage::sso::list_ids(&mut tx, nid, IDS_MAX).await?;
    if ids.iter().any(|id| id.provider == external.0) {
        return Err(Error::NameTaken);
    }
    match storage::sso::insert_id(&mut tx, nid, external, now_ms()).await {
        Err(error) if error.violates("external_id_pkey") => return Err(Error::NameTaken),
        added => added?,
    }
    tx.commit().await?;
    Ok(())
}

/// Sets the display name; whether it was another.
async fn name(
    ctx: &Context,
    provider: &Provider,
    user: &UserId,
    identity: &Identity,
) -> Result<bool, Error> {
    let Some(name) = provider.display_name(&identity.claims) else {
        return Ok(false);
    };
    let name = json!(name);
    if profile::get(ctx, user).await?.get("displayname") == Some(&name) {
        return Ok(false);
    }
    profile::set(ctx, user, "displayname", Some(name)).await?;
    Ok(true)
}
