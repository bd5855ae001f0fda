//! Cross-signing: keys of a user that sign devices and other users.

use ruma::UserId;
use serde_json::{Value, json};

use super::{BYTES_MAX, Error, signed::is_signed};
use crate::{
    context::Context,
    storage::{self, device_keys, key_backup},
    users::{announce, tokens::Session},
};

/// The public part of a cross-signing key: the only value of its `keys`.
pub fn public_part(key: &Value) -> Option<String> {
    let keys = key.get("keys")?.as_object()?;
    keys.values().next()?.as_str().map(ToOwned::to_owned)
}

/// The cross-signing keys in a request: (kind, key).
fn named(user: &UserId, body: &Value) -> Result<Vec<(&'static str, Value)>, Error> {
    let mut keys = Vec::new();
    for kind in ["master", "self_signing", "user_signing"] {
        let Some(key) = body.get(format!("{kind}_key")).filter(|key| !key.is_null()) else {
            continue;
        };
        let fits = key["user_id"] == user.as_str()
            && key["usage"]
                .as_array()
                .is_some_and(|usage| usage.contains(&json!(kind)))
            && key["keys"].as_object().is_some_and(|keys| keys.len() == 1)
            && public_part(key).is_some()
            && key.to_string().len() <= BYTES_MAX;
        if !fits {
            return Err(Error::Invalid(format!(
                "{kind}_key is no such key of yours"
            )));
        }
        keys.push((kind, key.clone()));
    }
    Ok(keys)
}

/// Whether an upload needs authentication: not the first one, and not one that changes nothing
/// (specification, v1.11).
pub async fn needs_authentication(
    ctx: &Context,
    session: &Session,
    body: &Value,
) -> Result<bool, Error> {
    let keys = named(&session.user_id, body)?;
    let mut conn = ctx.db.conn().await?;
    let known = device_keys::list_cross_signing(&mut conn, &[session.user_nid.0]).await?;
    let has_master = known.iter().any(|(_, kind, _)| kind == "master");
    let same = |(kind, key): &(&str, Value)| {
        known.iter().any(|(_, known_kind, known_body)| {
            known_kind == kind
                && serde_json::from_str::<Value>(known_body)
                    .ok()
                    .as_ref()
                    .and_then(public_part)
                    == public_part(key)
        })
    };
    Ok(has_master && !keys.iter().all(same))
}

/// Sets cross-signing keys (`POST /keys/device_signing/upload`). Signatures on keys that are replaced
/// go with them.
pub async fn upload(ctx: &Context, session: &Session, body: &Value) -> Result<(), Error> {
    let keys = named(&session.user_id, body)?;
    let (user, user_id) = (session.user_nid, &*session.user_id);
    let mut tx = ctx.db.begin().await?;
    // In turn, so that keys which were signed by a master key stand beside that one.
    key_backup::lock(&mut tx, user).await?;
    let known = device_keys::list_cross_signing(&mut tx, &[user.0]).await?;
    let known: Vec<(String, Value)> = known
        .into_iter()
        .map(|(_, kind, body)| (kind, serde_json::from_str(&body).unwrap_or_default()))
        .collect();
    check_signed(user_id, &keys, &known)?;
    let devices = storage::to_device::list_devices(&mut tx, &[user.0]).await?;
    let is_device = |public: String| devices.iter().any(|(.., id)| *id == public);
    if keys
        .iter()
        .filter_map(|(_, key)| public_part(key))
        .any(is_device)
    {
        let why = "a device of yours has the name of this key".to_owned();
        return Err(Error::Forbidden(why));
    }
    let mut replaced = Vec::new();
    for (kind, key) in &keys {
        let old = known.iter().find(|(known, _)| known == kind);
        let old = old.and_then(|(_, old)| public_part(old));
        replaced.extend(old.filter(|old| Some(old) != public_part(key).as_ref()));
        device_keys::upsert_cross_signing(&mut tx, user, kind, &key.to_string()).await?;
    }
    device_keys::delete_signatures(&mut tx, user, &replaced).await?;
    announce::signing_keys(ctx, &mut tx, (user_id, user)).await?;
    tx.commit().await?;
    Ok(())
}

/// The other keys have to be signed by the master key: that of the request, or the one in use.
fn check_signed(
    user: &UserId,
    keys: &[(&'static str, Value)],
    known: &[(String, Value)],
) -> Result<(), Error> {
    let uploaded = keys.iter().find(|(kind, _)| *kind == "master");
    let in_use = known.iter().find(|(kind, _)| kind == "master");
    let master = uploaded.map(|(_, key)| key);
    let master = master.or_else(|| in_use.map(|(_, key)| key));
    let public = master.and_then(public_part);
    for (_, key) in keys.iter().filter(|(kind, _)| *kind != "master") {
        let public = public.as_deref();
        let public = public.ok_or(Error::Missing("a master key is needed first"))?;
        let signature = key["signatures"][user.as_str()][format!("ed25519:{public}")].as_str();
        if !signature.is_some_and(|signature| is_signed(key, public, signature)) {
            let why = "the key is not signed by the master key";
            return Err(Error::InvalidSignature(why));
        }
    }
    Ok(())
}
