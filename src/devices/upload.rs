//! Keys as clients upload them, for the device that they are logged in with or a dehydrated one.

use ruma::UserId;
use serde_json::{Map, Value, json};

use super::{BYTES_MAX, Error};
use crate::{
    context::Context,
    storage::{LogEntry, LogKind, Tx, UserNid, device_keys},
    users::{announce, tokens::Session},
};

/// Keys in one upload.
const KEYS_MAX: usize = 2_000;
/// One-time keys of a device that may wait: libraries keep the private parts of fewer.
const WAITING_MAX: i64 = 5_000;

/// Columns of keys: algorithms, ids, bodies.
type Columns = (Vec<String>, Vec<String>, Vec<String>);

/// An upload, checked.
#[derive(Debug)]
pub(super) struct Upload {
    identity: Option<Value>,
    one_time: Columns,
    fallback: Columns,
}

/// What an upload did.
#[derive(Debug)]
pub(super) struct Stored {
    /// One-time keys that wait, by algorithm.
    counts: Vec<(String, i64)>,
    /// Whether the identity keys are new.
    pub(super) is_changed: bool,
}

/// Takes keys of the asking device (`POST /keys/upload`); the answer is the counts of its one-time
/// keys.
pub async fn upload(ctx: &Context, session: &Session, body: &Value) -> Result<Value, Error> {
    if session.device_no == 0 {
        let why = "keys are of a device: name it with device_id".to_owned();
        return Err(Error::Invalid(why));
    }
    let device_id = session.device_id.as_str();
    let upload = parse(&session.user_id, device_id, body)?;
    let mut tx = ctx.db.begin().await?;
    let device = (session.device_no, device_id);
    let stored = store(&mut tx, session.user_nid, device, &upload).await?;
    if stored.is_changed {
        let owner = (&*session.user_id, session.user_nid);
        announce::devices(ctx, &mut tx, owner, &[device_id]).await?;
    } else if upload.has_claimable() {
        tx.log(counts(session.user_nid)).await?;
    }
    tx.commit().await?;
    Ok(counted(stored.counts))
}

/// Says that other keys of a user's devices wait to be claimed than before.
pub(super) fn counts(user: UserNid) -> LogEntry {
    LogEntry {
        kind: LogKind::KeyCounts,
        room: 0,
        user: user.0,
        reference: 0,
    }
}

/// Counts of one-time keys as clients read them: the usual algorithm is always there.
pub fn counted(counts: Vec<(String, i64)>) -> Value {
    let mut object = Map::new();
    object.insert("signed_curve25519".to_owned(), json!(0));
    object.extend(
        counts
            .into_iter()
            .map(|(algorithm, n)| (algorithm, json!(n))),
    );
    Value::Object(object)
}

/// Reads an upload for a device.
pub(super) fn parse(user: &UserId, device: &str, body: &Value) -> Result<Upload, Error> {
    let identity = body.get("device_keys").filter(|keys| !keys.is_null());
    if let Some(keys) = identity {
        check_identity(user, device, keys)?;
    }
    Ok(Upload {
        identity: identity.cloned(),
        one_time: columns(body.get("one_time_keys"))?,
        fallback: columns(body.get("fallback_keys"))?,
    })
}

impl Upload {
    /// Whether there are identity keys.
    pub(super) fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether there are keys to be claimed.
    fn has_claimable(&self) -> bool {
        !self.one_time.1.is_empty() || !self.fallback.1.is_empty()
    }
}

fn check_identity(user: &UserId, device: &str, keys: &Value) -> Result<(), Error> {
    let named = |key: &str| keys.get(key).and_then(Value::as_str);
    let is_whole = named("user_id").is_some()
        && named("device_id").is_some()
        && keys["algorithms"].is_array()
        && keys["keys"].is_object()
        && keys["signatures"].is_object();
    if !is_whole {
        let why = "device_keys need user_id, device_id, algorithms, keys and signatures";
        return Err(Error::BadJson(why));
    }
    if named("user_id") != Some(user.as_str()) || named("device_id") != Some(device) {
        let why = "device_keys must be of the device that uploads them";
        return Err(Error::Invalid(why.to_owned()));
    }
    if keys.to_string().len() > BYTES_MAX {
        return Err(Error::Invalid("device_keys are too large".to_owned()));
    }
    Ok(())
}

fn columns(keys: Option<&Value>) -> Result<Columns, Error> {
    let bad = |what: &str| Error::Invalid(what.to_owned());
    let mut columns = Columns::default();
    let Some(keys) = keys.filter(|keys| !keys.is_null()) else {
        return Ok(columns);
    };
    let keys = keys.as_object().ok_or_else(|| bad("keys are an object"))?;
    if keys.len() > KEYS_MAX {
        return Err(bad("too many keys in one upload"));
    }
    for (id, key) in keys {
        let (algorithm, id) = id
            .split_once(':')
            .filter(|(algorithm, id)| !algorithm.is_empty() && !id.is_empty())
            .filter(|(algorithm, id)| algorithm.len() < 256 && id.len() < 256)
            .ok_or_else(|| bad("a key id is ALGORITHM:ID"))?;
        let body = key.to_string();
        if !(key.is_object() || key.is_string()) || body.len() > BYTES_MAX {
            return Err(bad("a key is a string or a small object"));
        }
        columns.0.push(algorithm.to_owned());
        columns.1.push(id.to_owned());
        columns.2.push(body);
    }
    Ok(columns)
}

/// Writes an upload. A key of the same id as one that waits must be the same; one that was given
/// already is not given again.
pub(super) async fn store(
    tx: &mut Tx,
    user: UserNid,
    (device, device_id): (i32, &str),
    upload: &Upload,
) -> Result<Stored, Error> {
    let (algorithms, ids, bodies) = &upload.one_time;
    let known = device_keys::find_one_time(tx, user, device, ids).await?;
    for ((algorithm, id), body) in algorithms.iter().zip(ids).zip(bodies) {
        let is_other =
            |(a, i, b): &(String, String, String)| a == algorithm && i == id && b != body;
        if known.iter().any(is_other) {
            let why = format!("there is another one-time key {algorithm}:{id}");
            return Err(Error::Invalid(why));
        }
    }
    device_keys::insert_one_time(tx, user, device, (algorithms, ids, bodies)).await?;
    let (algorithms, ids, bodies) = &upload.fallback;
    device_keys::upsert_fallback(tx, user, device, (algorithms, ids, bodies)).await?;
    let counts = device_keys::count_one_time(tx, user, device).await?;
    if counts.iter().map(|(_, n)| n).sum::<i64>() > WAITING_MAX {
        return Err(Error::Invalid("too many one-time keys wait".to_owned()));
    }
    let is_changed = match &upload.identity {
        Some(keys) => set_identity(tx, user, (device, device_id), keys).await?,
        None => false,
    };
    Ok(Stored { counts, is_changed })
}

/// Sets identity keys; `false`: they are what they were. Signatures on other keys go.
async fn set_identity(
    tx: &mut Tx,
    user: UserNid,
    (device, device_id): (i32, &str),
    keys: &Value,
) -> Result<bool, Error> {
    let before = device_keys::find(tx, user, device).await?;
    if !device_keys::upsert(tx, user, device, &keys.to_string()).await? {
        return Ok(false);
    }
    let before = before.and_then(|body| serde_json::from_str::<Value>(&body).ok());
    if before.is_some_and(|before| before["keys"] != keys["keys"]) {
        device_keys::delete_signatures(tx, user, &[device_id.to_owned()]).await?;
    }
    Ok(true)
}
