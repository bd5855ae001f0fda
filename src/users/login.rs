//! Password login, password change, closing an account.

use ruma::{OwnedUserId, UserId};

use super::{
    Error, erased, passwords, profile,
    registration::{self, user_id},
    threepids,
};
use crate::{config::Appservice, context::Context, storage};

/// The user that a client names: a full id of ours or a localpart. Foreign ids are unknown users.
pub fn parse_user(ctx: &Context, name: &str) -> Option<OwnedUserId> {
    if name.starts_with('@') {
        // Our users have no capitals in their names, whatever people type.
        let (localpart, server) = name.split_once(':')?;
        let id = UserId::parse(format!("{}:{server}", localpart.to_lowercase())).ok()?;
        return (id.server_name() == ctx.server_name()).then_some(id);
    }
    user_id(ctx.server_name(), &name.to_lowercase()).ok()
}

/// The user who has an e-mail address.
pub async fn find_by_address(ctx: &Context, address: &str) -> Result<Option<OwnedUserId>, Error> {
    match threepids::find_owner(ctx, address).await? {
        Some(owner) => Ok(Some(ctx.db.ids.user_id(owner).await?)),
        None => Ok(None),
    }
}

/// Checks a password. Takes as long for users that do not exist.
pub async fn check_password(
    ctx: &Context,
    user: Option<&UserId>,
    password: &str,
) -> Result<OwnedUserId, Error> {
    let account = match user {
        Some(user) => match ctx.db.ids.find_user(user).await? {
            Some(nid) => {
                let mut conn = ctx.db.conn().await?;
                storage::users::find(&mut conn, nid).await?
            }
            None => None,
        },
        None => None,
    };
    let deactivated = account.as_ref().is_some_and(|account| account.deactivated);
    let locked = account.as_ref().is_some_and(|account| account.locked);
    let hash = account.and_then(|account| account.password_hash);
    let matches = passwords::verify(password, hash).await;
    match user {
        Some(_) if deactivated => Err(Error::Deactivated),
        Some(_) if matches && locked => Err(Error::Locked),
        Some(user) if matches => Ok(user.to_owned()),
        _ => Err(Error::WrongCredentials),
    }
}

/// The user of an application service that logs it in.
pub async fn check_appservice(
    ctx: &Context,
    service: &Appservice,
    name: &str,
) -> Result<OwnedUserId, Error> {
    let user = parse_user(ctx, name).filter(|user| service.has_user(user));
    let user = user.ok_or(Error::Exclusive(
        "the user is none of this application service",
    ))?;
    if registration::exists(ctx, &user).await? {
        Ok(user)
    } else {
        Err(Error::WrongCredentials)
    }
}

/// Sets a new password. Browsers that were logged in to our pages are not any more.
pub async fn set_password(ctx: &Context, user: &UserId, password: &str) -> Result<(), Error> {
    passwords::check_strength(password, ctx.config.registration.password_length_min)?;
    let hash = passwords::hash(password).await?;
    let nid = ctx.db.ids.user(user).await?;
    let mut tx = ctx.db.begin().await?;
    storage::users::update_password(&mut tx, nid, &hash).await?;
    storage::browser_sessions::delete_of_user(&mut tx, nid).await?;
    tx.commit().await?;
    Ok(())
}

/// Closes an account. Its sessions end by `Tokens::end`, its rooms by `membership::leave_all`.
pub async fn deactivate(ctx: &Context, user: &UserId, erase: bool) -> Result<(), Error> {
    let nid = ctx.db.ids.user(user).await?;
    let mut tx = ctx.db.begin().await?;
    storage::users::deactivate(&mut tx, nid, erase).await?;
    storage::pushers::delete_of_user(&mut tx, nid).await?;
    storage::threepids::delete_of_user(&mut tx, nid).await?;
    storage::browser_sessions::delete_of_user(&mut tx, nid).await?;
    if erase {
        // Who they are elsewhere is not known any more. Their name stays taken.
        storage::sso::delete_ids(&mut tx, nid).await?;
        tx.log(erased::entry(nid)).await?;
    }
    storage::device_keys::delete_cross_signing(&mut tx, nid).await?;
    storage::key_backup::delete_all(&mut tx, nid).await?;
    // Application services speak for it without a device that ends.
    tx.log(super::tokens::invalid_entry(nid)).await?;
    tx.commit().await?;
    Ok(())
}

/// Opens a closed account again. It is as a new one of that name: without rooms, devices and addresses.
pub async fn reopen(ctx: &Context, user: &UserId, password: &str) -> Result<(), Error> {
    passwords::check_strength(password, ctx.config.registration.password_length_min)?;
    let hash = passwords::hash(password).await?;
    let nid = ctx.db.ids.user(user).await?;
    let mut tx = ctx.db.begin().await?;
    if storage::users::reopen(&mut tx, (nid, user.localpart()), &hash).await? {
        profile::log(&mut tx, nid, "displayname").await?;
        tx.log(erased::entry(nid)).await?;
    }
    tx.commit().await?;
    Ok(())
}
