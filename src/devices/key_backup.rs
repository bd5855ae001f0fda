//! Key backup: room keys that clients keep here, encrypted by them.

use serde_json::{Map, Value, json};

use super::{BYTES_MAX, Error};
use crate::{
    context::Context,
    storage::{
        UserNid,
        key_backup::{self, Backup, Key, Which},
    },
};

fn bad(what: &str) -> Error {
    Error::Invalid(what.to_owned())
}

/// A version as clients write it.
pub fn parse_version(text: &str) -> Result<i64, Error> {
    text.parse().map_err(|_| Error::NotFound("no such backup"))
}

/// Makes a version (`POST /room_keys/version`).
pub async fn create(ctx: &Context, user: UserNid, body: &Value) -> Result<i64, Error> {
    let algorithm = body["algorithm"].as_str().ok_or_else(|| bad("algorithm"))?;
    let data = auth_data(body)?;
    let mut tx = ctx.db.begin().await?;
    key_backup::lock(&mut tx, user).await?;
    let version = key_backup::insert(&mut tx, user, algorithm, &data).await?;
    tx.commit().await?;
    Ok(version)
}

fn auth_data(body: &Value) -> Result<String, Error> {
    let data = body.get("auth_data").filter(|data| data.is_object());
    let data = data
        .ok_or_else(|| bad("auth_data must be an object"))?
        .to_string();
    if data.len() > BYTES_MAX {
        return Err(bad("auth_data is too large"));
    }
    Ok(data)
}

/// A version, or the newest.
pub async fn get(ctx: &Context, user: UserNid, version: Option<i64>) -> Result<Backup, Error> {
    let mut conn = ctx.db.conn().await?;
    let found = key_backup::find(&mut conn, user, version).await?;
    found.ok_or(Error::NotFound("no such backup"))
}

/// Sets `auth_data` of a version; its algorithm stays.
pub async fn update(ctx: &Context, user: UserNid, version: i64, body: &Value) -> Result<(), Error> {
    let backup = get(ctx, user, Some(version)).await?;
    if body["algorithm"].as_str() != Some(&backup.algorithm) {
        return Err(bad("the algorithm of a backup cannot change"));
    }
    let says = body.get("version").and_then(Value::as_str);
    if says.is_some_and(|says| says != version.to_string()) {
        return Err(bad("version is not that of the path"));
    }
    let mut conn = ctx.db.conn().await?;
    Ok(key_backup::update(&mut conn, (user, version), &auth_data(body)?).await?)
}

/// Deletes a version with its keys.
pub async fn delete(ctx: &Context, user: UserNid, version: i64) -> Result<(), Error> {
    get(ctx, user, Some(version)).await?;
    let mut tx = ctx.db.begin().await?;
    key_backup::lock(&mut tx, user).await?;
    key_backup::delete(&mut tx, user, version).await?;
    tx.commit().await?;
    Ok(())
}

/// One key as a client sends it.
fn key(room_id: &str, session_id: &str, value: &Value) -> Result<Key, Error> {
    let number = |name: &str| value[name].as_i64().filter(|n| *n >= 0);
    let data = value.get("session_data").filter(|data| data.is_object());
    let data = data
        .ok_or_else(|| bad("session_data must be an object"))?
        .to_string();
    if data.len() > BYTES_MAX || room_id.len() > 255 || session_id.len() > 255 {
        return Err(bad("a key is too large"));
    }
    Ok(Key {
        room_id: room_id.to_owned(),
        session_id: session_id.to_owned(),
        first_index: number("first_message_index").ok_or_else(|| bad("first_message_index"))?,
        forwarded: number("forwarded_count").ok_or_else(|| bad("forwarded_count"))?,
        verified: value["is_verified"]
            .as_bool()
            .ok_or_else(|| bad("is_verified"))?,
        data,
    })
}

fn keys_of(which: Which<'_>, body: &Value) -> Result<Vec<Key>, Error> {
    let object = |value: &Value, name: &str| -> Result<Map<String, Value>, Error> {
        value[name].as_object().cloned().ok_or_else(|| bad(name))
    };
    let mut keys = Vec::new();
    match (which.room, which.session) {
        (Some(room), Some(session)) => keys.push(key(room, session, body)?),
        (Some(room), None) => {
            for (session, value) in object(body, "sessions")? {
                keys.push(key(room, &session, &value)?);
            }
        }
        _ => {
            for (room, value) in object(body, "rooms")? {
                for (session, value) in object(&value, "sessions")? {
                    keys.push(key(&room, &session, &value)?);
                }
            }
        }
    }
    Ok(keys)
}

/// Adds keys (`PUT /room_keys/keys…`) to the newest version, and to no other.
pub async fn put_keys(
    ctx: &Context,
    (user, version): (UserNid, i64),
    which: Which<'_>,
    body: &Value,
) -> Result<Backup, Error> {
    let keys = keys_of(which, body)?;
    let mut tx = ctx.db.begin().await?;
    key_backup::lock(&mut tx, user).await?;
    let newest = key_backup::find(&mut tx, user, None).await?;
    let newest = newest.ok_or(Error::NotFound("no backup"))?;
    if newest.version != version {
        return Err(Error::WrongBackup(newest.version.to_string()));
    }
    if key_backup::upsert_keys(&mut tx, (user, version), &keys).await? > 0 {
        key_backup::touch(&mut tx, user, version).await?;
    }
    tx.commit().await?;
    get(ctx, user, Some(version)).await
}

fn session_body(key: &Key) -> Value {
    json!({
        "first_message_index": key.first_index,
        "forwarded_count": key.forwarded,
        "is_verified": key.verified,
        "session_data": serde_json::from_str::<Value>(&key.data).unwrap_or_default(),
    })
}

/// Keys of a version, in the shape of the path asked for.
pub async fn get_keys(
    ctx: &Context,
    (user, version): (UserNid, i64),
    which: Which<'_>,
) -> Result<Value, Error> {
    get(ctx, user, Some(version)).await?;
    let mut conn = ctx.db.planning().await?;
    let keys = key_backup::list_keys(&mut conn, (user, version), which).await?;
    drop(conn);
    match (which.room, which.session) {
        (_, Some(_)) => {
            let key = keys.first().ok_or(Error::NotFound("no such key"))?;
            Ok(session_body(key))
        }
        (Some(_), None) => {
            let sessions = keys
                .iter()
                .map(|key| (key.session_id.clone(), session_body(key)));
            Ok(json!({ "sessions": sessions.collect::<Map<_, _>>() }))
        }
        (None, None) => {
            let mut rooms: Map<String, Value> = Map::new();
            for key in &keys {
                let room = rooms.entry(key.room_id.clone());
                let room = room.or_insert_with(|| json!({ "sessions": {} }));
                room["sessions"][&key.session_id] = session_body(key);
            }
            Ok(json!({ "rooms": rooms }))
        }
    }
}

/// Deletes keys of a version.
pub async fn delete_keys(
    ctx: &Context,
    (user, version): (UserNid, i64),
    which: Which<'_>,
) -> Result<Backup, Error> {
    get(ctx, user, Some(version)).await?;
    let mut tx = ctx.db.begin().await?;
    key_backup::lock(&mut tx, user).await?;
    if key_backup::delete_keys(&mut tx, (user, version), which).await? > 0 {
        key_backup::touch(&mut tx, user, version).await?;
    }
    tx.commit().await?;
    get(ctx, user, Some(version)).await
}
