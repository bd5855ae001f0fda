//! Cross-signing: keys of a user that sign devices and other users.

use ruma::UserId;
use serde_json::{Map, Value, json};

use super::{BYTES_MAX, Error};
use crate::{
    context::Context,
    storage::{Tx, UserNid, device_keys},
    users::{announce, tokens::Session},
};

/// Keys signed in one request.
const SIGNED_MAX: usize = 1_000;

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

/// Sets cross-signing keys (`POST /keys/device_signing/upload`).
pub async fn upload(ctx: &Context, session: &Session, body: &Value) -> Result<(), Error> {
    let keys = named(&session.user_id, body)?;
    let mut tx = ctx.db.begin().await?;
    for (kind, key) in &keys {
        device_keys::upsert_cross_signing(&mut tx, session.user_nid, kind, &key.to_string())
            .await?;
    }
    announce::signing_keys(ctx, &mut tx, (&session.user_id, session.user_nid)).await?;
    tx.commit().await?;
    Ok(())
}

/// Adds signatures (`POST /keys/signatures/upload`): of the asking user on its own devices and
/// master key, and on master keys of other users here. The answer tells what was not taken.
pub async fn sign(ctx: &Context, session: &Session, body: &Value) -> Result<Value, Error> {
    let signed = body
        .as_object()
        .ok_or_else(|| Error::Invalid("an object of users is needed".to_owned()))?;
    if signed
        .values()
        .filter_map(Value::as_object)
        .map(Map::len)
        .sum::<usize>()
        > SIGNED_MAX
    {
        return Err(Error::Invalid("too many keys in one request".to_owned()));
    }
    let mut failures: Map<String, Value> = Map::new();
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let mut tx = ctx.db.begin().await?;
    for (user, keys) in signed {
        for (target, key) in keys.as_object().into_iter().flatten() {
            match sign_one(ctx, &mut tx, session, (user, target), key).await? {
                Err(why) => {
                    let of_user = failures.entry(user.clone()).or_insert_with(|| json!({}));
                    of_user[target] = json!({ "errcode": "M_INVALID_SIGNATURE", "error": why });
                }
                Ok(owner) if owner == session.user_nid => own.push(target.as_str()),
                Ok(owner) => others.push(owner.0),
            }
        }
    }
    tell(ctx, &mut tx, session, &own).await?;
    if !others.is_empty() {
        announce::signatures(&mut tx, session.user_nid, &others).await?;
    }
    tx.commit().await?;
    Ok(json!({ "failures": failures }))
}

/// Tells everybody of signatures that were added to the user's own devices and keys.
async fn tell(ctx: &Context, tx: &mut Tx, session: &Session, signed: &[&str]) -> Result<(), Error> {
    let owner = (&*session.user_id, session.user_nid);
    let known = device_keys::list(tx, &[session.user_nid.0]).await?;
    let is_device = |target: &&str| known.iter().any(|(_, id, ..)| id == target);
    let (devices, keys): (Vec<&str>, Vec<&str>) = signed.iter().partition(|t| is_device(t));
    if !devices.is_empty() {
        announce::devices(ctx, tx, owner, &devices).await?;
    }
    if !keys.is_empty() {
        announce::signing_keys(ctx, tx, owner).await?;
    }
    Ok(())
}

/// Adds the signatures of the asking user on one key; whose key that is, or what is wrong.
async fn sign_one(
    ctx: &Context,
    tx: &mut Tx,
    session: &Session,
    (user, target): (&str, &str),
    key: &Value,
) -> Result<Result<UserNid, &'static str>, Error> {
    let Some(owner) = <&UserId>::try_from(user).ok() else {
        return Ok(Err("no user id"));
    };
    let Some(owner) = ctx.db.ids.find_user(owner).await? else {
        return Ok(Err("unknown user"));
    };
    if key["user_id"] != user {
        return Ok(Err("the key is of another user"));
    }
    let given = key["signatures"][session.user_id.as_str()].as_object();
    let Some(given) = given.filter(|given| !given.is_empty() && given.len() <= 20) else {
        return Ok(Err("no signature of yours"));
    };
    if target.len() > 255 || key.to_string().len() > BYTES_MAX {
        return Ok(Err("too large"));
    }
    for (key_id, signature) in given {
        let Some(signature) = signature.as_str() else {
            return Ok(Err("a signature is no string"));
        };
        let by = (session.user_nid, key_id.as_str(), signature);
        device_keys::upsert_signature(tx, (owner, target), by).await?;
    }
    Ok(Ok(owner))
}
