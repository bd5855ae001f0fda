//! Profiles of local users. The part that rooms show is spread by `rooms::membership`.

use ruma::UserId;
use serde_json::{Map, Value};

use super::Error;
use crate::{
    context::Context,
    storage::{self, LogEntry, LogKind, Tx, UserNid},
};

/// Bytes of a whole profile (specification, "Extensible profiles").
const PROFILE_BYTES_MAX: usize = 65_536;
/// Bytes of a field's name.
const KEY_BYTES_MAX: usize = 255;

/// A local user's profile; an application service makes a user of its own if it wants to.
pub async fn get_or_ask(ctx: &Context, user: &UserId) -> Result<Map<String, Value>, Error> {
    match get(ctx, user).await {
        Err(Error::NotFound(_)) if ctx.appservices.has_made_user(user).await => {
            get(ctx, user).await
        }
        found => found,
    }
}

/// A local user's profile.
pub async fn get(ctx: &Context, user: &UserId) -> Result<Map<String, Value>, Error> {
    let missing = || Error::NotFound("user");
    let nid = ctx.db.ids.find_user(user).await?.ok_or_else(missing)?;
    let mut conn = ctx.db.conn().await?;
    match storage::users::find_profile(&mut conn, nid).await? {
        Some(Value::Object(profile)) => Ok(profile),
        _ => Err(missing()),
    }
}

/// Sets one field, or removes it (`None`).
pub async fn set(
    ctx: &Context,
    user: &UserId,
    field: &str,
    value: Option<Value>,
) -> Result<(), Error> {
    if field.len() > KEY_BYTES_MAX {
        return Err(Error::KeyTooLarge);
    }
    let known = matches!(field, "displayname" | "avatar_url");
    if known && !value.as_ref().is_none_or(Value::is_string) {
        return Err(Error::Invalid("displayname and avatar_url are strings"));
    }
    let value = value.filter(|value| !(known && value.as_str() == Some("")));
    let mut profile = get(ctx, user).await?;
    match &value {
        Some(value) => profile.insert(field.to_owned(), value.clone()),
        None => profile.remove(field),
    };
    if Value::Object(profile).to_string().len() > PROFILE_BYTES_MAX {
        return Err(Error::ProfileTooLarge("a profile has at most 64 KiB"));
    }
    let nid = ctx.db.ids.user(user).await?;
    let mut tx = ctx.db.begin().await?;
    storage::users::update_profile(&mut tx, nid, field, value.as_ref()).await?;
    log(&mut tx, nid, field).await?;
    tx.commit().await?;
    Ok(())
}

/// Notes that a field is another one, for syncs and the user directory.
pub(super) async fn log(tx: &mut Tx, user: UserNid, field: &str) -> Result<(), storage::Error> {
    let entry = LogEntry {
        kind: LogKind::Profile,
        room: 0,
        user: user.0,
        reference: 0,
    };
    let pos = tx.log(entry).await?;
    storage::profile_changes::upsert(tx, user, field, pos).await
}
