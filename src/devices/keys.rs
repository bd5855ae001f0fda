//! Keys of devices: uploaded, asked for, handed out.

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId,
    api::federation::keys::claim_keys,
};
use serde_json::{Map, Value, json};

use super::{BYTES_MAX, Error, lists};
use crate::{
    context::Context,
    storage::{self, device_keys},
    users::{announce, tokens::Session},
};

/// Keys in one upload, users in one question, devices in one claim.
const MANY: usize = 2_000;
/// Peers asked at the same time.
const PEERS_AT_ONCE: usize = 20;
/// The longest that peers may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Columns of keys: algorithms, ids, bodies.
type Columns = (Vec<String>, Vec<String>, Vec<String>);

fn columns(keys: Option<&Value>) -> Result<Columns, Error> {
    let bad = |what: &str| Error::Invalid(what.to_owned());
    let mut columns = Columns::default();
    let Some(keys) = keys.filter(|keys| !keys.is_null()) else {
        return Ok(columns);
    };
    let keys = keys.as_object().ok_or_else(|| bad("keys are an object"))?;
    if keys.len() > MANY {
        return Err(bad("too many keys in one upload"));
    }
    for (id, key) in keys {
        let (algorithm, id) = id
            .split_once(':')
            .filter(|(algorithm, id)| !algorithm.is_empty() && !id.is_empty() && id.len() < 256)
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

/// Takes keys of the asking device (`POST /keys/upload`); the answer is the counts of its one-time
/// keys.
pub async fn upload(ctx: &Context, session: &Session, body: &Value) -> Result<Value, Error> {
    let (user, device) = (session.user_nid, session.device_no);
    if device == 0 {
        let why = "keys are of a device: name it with device_id".to_owned();
        return Err(Error::Invalid(why));
    }
    let one_time = columns(body.get("one_time_keys"))?;
    let fallback = columns(body.get("fallback_keys"))?;
    let identity = body.get("device_keys").filter(|keys| !keys.is_null());
    if let Some(keys) = identity {
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
        if named("user_id") != Some(session.user_id.as_str())
            || named("device_id") != Some(session.device_id.as_str())
        {
            return Err(Error::Invalid(
                "device_keys must be of the device that uploads them".to_owned(),
            ));
        }
        if keys.to_string().len() > BYTES_MAX {
            return Err(Error::Invalid("device_keys are too large".to_owned()));
        }
    }
    let mut tx = ctx.db.begin().await?;
    let known = device_keys::find_one_time(&mut tx, user, device, &one_time.1).await?;
    for ((algorithm, id), body) in one_time.0.iter().zip(&one_time.1).zip(&one_time.2) {
        if known
            .iter()
            .any(|(a, i, b)| a == algorithm && i == id && b != body)
        {
            return Err(Error::Invalid(format!(
                "there is another one-time key {algorithm}:{id}"
            )));
        }
    }
    let (algorithms, ids, bodies) = &one_time;
    device_keys::insert_one_time(&mut tx, user, device, (algorithms, ids, bodies)).await?;
    let (algorithms, ids, bodies) = &fallback;
    device_keys::upsert_fallback(&mut tx, user, device, (algorithms, ids, bodies)).await?;
    let counts = device_keys::count_one_time(&mut tx, user, device).await?;
    if let Some(keys) = identity
        && device_keys::upsert(&mut tx, user, device, &keys.to_string()).await?
    {
        let owner = (&*session.user_id, user);
        announce::devices(ctx, &mut tx, owner, &[session.device_id.as_str()]).await?;
    }
    tx.commit().await?;
    Ok(counted(counts))
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

/// What a question for keys found: keys by user and device, cross-signing keys by user.
#[derive(Debug, Default)]
pub struct Found {
    pub(super) device_keys: Map<String, Value>,
    pub(super) master_keys: Map<String, Value>,
    pub(super) self_signing_keys: Map<String, Value>,
    user_signing_keys: Map<String, Value>,
    pub(super) failures: Map<String, Value>,
}

impl Found {
    /// As clients (`own`) or peers get it.
    pub fn body(self, own: bool) -> Value {
        let mut body = json!({
            "device_keys": self.device_keys,
            "master_keys": self.master_keys,
            "self_signing_keys": self.self_signing_keys,
        });
        if own {
            body["user_signing_keys"] = Value::Object(self.user_signing_keys);
            body["failures"] = Value::Object(self.failures);
        }
        body
    }
}

/// Which devices of which users; no devices: all.
pub type Question = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;

/// Keys of local users as `reader` may see them.
pub async fn local(
    ctx: &Context,
    asked: &Question,
    reader: Option<&UserId>,
) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut users: BTreeMap<i64, &OwnedUserId> = BTreeMap::new();
    for user in asked.keys() {
        if let Some(nid) = ctx.db.ids.find_user(user).await? {
            users.insert(nid.0, user);
        }
    }
    let nids: Vec<i64> = users.keys().copied().collect();
    let reader_nid = match reader {
        Some(reader) => ctx.db.ids.user(reader).await?.0,
        None => 0,
    };
    let mut conn = ctx.db.conn().await?;
    let devices = device_keys::list(&mut conn, &nids).await?;
    let cross = device_keys::list_cross_signing(&mut conn, &nids).await?;
    let signatures = device_keys::list_signatures(&mut conn, &nids, reader_nid).await?;
    drop(conn);
    let signers: Vec<_> = signatures
        .iter()
        .map(|(_, _, signer, ..)| storage::UserNid(*signer))
        .collect();
    let signers = ctx.db.ids.user_ids_of(&signers).await?;
    let sign = |owner: i64, target: &str, key: &mut Value| {
        for ((of, on, _, key_id, signature), signer) in signatures.iter().zip(&signers) {
            if *of == owner && on == target {
                key["signatures"][signer.as_str()][key_id] = json!(signature);
            }
        }
    };
    for (nid, device, name, body) in devices {
        let Some(user) = users.get(&nid) else {
            continue;
        };
        let wanted = &asked[*user];
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted.as_str() == device) {
            continue;
        }
        let mut key: Value = serde_json::from_str(&body).unwrap_or_default();
        sign(nid, &device, &mut key);
        if let Some(name) = name {
            key["unsigned"] = json!({ "device_display_name": name });
        }
        found
            .device_keys
            .entry(user.to_string())
            .or_insert_with(|| json!({}))[&device] = key;
    }
    for user in users.values() {
        // Known users without devices answer with none.
        let entry = found.device_keys.entry(user.to_string());
        entry.or_insert_with(|| json!({}));
    }
    for (nid, kind, body) in cross {
        let Some(user) = users.get(&nid) else {
            continue;
        };
        let mut key: Value = serde_json::from_str(&body).unwrap_or_default();
        if let Some(public) = super::cross_signing::public_part(&key) {
            sign(nid, &public, &mut key);
        }
        let map = match kind.as_str() {
            "master" => &mut found.master_keys,
            "self_signing" => &mut found.self_signing_keys,
            // Of nobody's interest but the owner's.
            _ if reader == Some(user) => &mut found.user_signing_keys,
            _ => continue,
        };
        map.insert(user.to_string(), key);
    }
    Ok(found)
}

/// How many changes peers were told of the devices of a user of ours. To be read before the
/// devices: an update that comes in between is then told once more, and not missed.
pub async fn own_stream(ctx: &Context, user: &UserId) -> Result<i64, Error> {
    let Some(nid) = ctx.db.ids.find_user(user).await? else {
        return Ok(0);
    };
    let mut conn = ctx.db.conn().await?;
    Ok(storage::device_lists::find_own_stream(&mut conn, nid).await?)
}

/// Splits by server; ours apart.
fn by_server<T>(
    own: &ServerName,
    asked: BTreeMap<OwnedUserId, T>,
) -> (
    BTreeMap<OwnedUserId, T>,
    BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>>,
) {
    let (mut local, mut remote) = (BTreeMap::new(), BTreeMap::new());
    for (user, wanted) in asked {
        if user.server_name() == own {
            local.insert(user, wanted);
        } else {
            let server = user.server_name().to_owned();
            let of_server: &mut BTreeMap<_, _> = remote.entry(server).or_default();
            of_server.insert(user, wanted);
        }
    }
    (local, remote)
}

/// Keys of any users (`POST /keys/query`).
pub async fn query(ctx: &Context, session: &Session, asked: Question) -> Result<Found, Error> {
    if asked.len() > MANY {
        return Err(Error::Invalid("too many users in one question".to_owned()));
    }
    let (ours, theirs) = by_server(ctx.server_name(), asked);
    let mut found = local(ctx, &ours, Some(&session.user_id)).await?;
    let remote: Vec<OwnedUserId> = theirs.values().flat_map(Question::keys).cloned().collect();
    lists::query(ctx, theirs, &mut found).await?;
    sign_masters(ctx, session, &remote, &mut found).await?;
    Ok(found)
}

/// Puts the signatures that the asking user made on master keys of users of peers into the answer:
/// nobody but us keeps them.
async fn sign_masters(
    ctx: &Context,
    session: &Session,
    users: &[OwnedUserId],
    found: &mut Found,
) -> Result<(), Error> {
    let mut nids = BTreeMap::new();
    for user in users {
        if found.master_keys.contains_key(user.as_str())
            && let Some(nid) = ctx.db.ids.find_user(user).await?
        {
            nids.insert(nid.0, user);
        }
    }
    if nids.is_empty() {
        return Ok(());
    }
    let all: Vec<i64> = nids.keys().copied().collect();
    let reader = session.user_nid.0;
    let mut conn = ctx.db.conn().await?;
    let signatures = device_keys::list_signatures(&mut conn, &all, reader).await?;
    drop(conn);
    for (owner, target, signer, key_id, signature) in signatures {
        let Some(key) = nids
            .get(&owner)
            .and_then(|user| found.master_keys.get_mut(user.as_str()))
        else {
            continue;
        };
        if signer == reader && super::cross_signing::public_part(key).as_ref() == Some(&target) {
            key["signatures"][session.user_id.as_str()][key_id] = json!(signature);
        }
    }
    Ok(())
}

/// Wishes for one-time keys: algorithm by user and device.
pub type Wishes = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, ruma::OneTimeKeyAlgorithm>>;

/// One-time keys of local devices; each is given once.
pub async fn claim_local(ctx: &Context, wishes: &Wishes) -> Result<Map<String, Value>, Error> {
    let (mut users, mut devices, mut algorithms) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = BTreeMap::new();
    for (user, wanted) in wishes {
        let Some(nid) = ctx.db.ids.find_user(user).await? else {
            continue;
        };
        names.insert(nid.0, user);
        for (device, algorithm) in wanted {
            users.push(nid.0);
            devices.push(device.to_string());
            algorithms.push(algorithm.to_string());
        }
    }
    if users.len() > MANY {
        return Err(Error::Invalid("too many devices in one claim".to_owned()));
    }
    let mut conn = ctx.db.conn().await?;
    let taken = device_keys::claim(&mut conn, (&users, &devices, &algorithms)).await?;
    let mut keys: Map<String, Value> = Map::new();
    for (nid, device, key, body) in taken {
        let Some(user) = names.get(&nid) else {
            continue;
        };
        let body: Value = serde_json::from_str(&body).unwrap_or_default();
        let of_user = keys.entry(user.to_string()).or_insert_with(|| json!({}));
        of_user[device][key] = body;
    }
    Ok(keys)
}

/// One-time keys of any devices (`POST /keys/claim`).
pub async fn claim(ctx: &Context, wishes: Wishes) -> Result<Value, Error> {
    use futures_util::{StreamExt, stream};
    let (ours, theirs) = by_server(ctx.server_name(), wishes);
    let mut keys = claim_local(ctx, &ours).await?;
    let mut failures = Map::new();
    let jobs: Vec<_> = theirs
        .into_iter()
        .map(|(server, wishes)| async move {
            let request = claim_keys::v1::Request::new(wishes.clone());
            let asked = ctx.federation.request(&server, request);
            let answer = tokio::time::timeout(PATIENCE, asked).await;
            (server, wishes, answer)
        })
        .collect();
    let mut answers = stream::iter(jobs).buffer_unordered(PEERS_AT_ONCE);
    while let Some((server, wishes, answer)) = answers.next().await {
        let Ok(Ok(answer)) = answer else {
            let why = json!({ "errcode": "M_UNREACHABLE", "error": "the server was not reached" });
            failures.insert(server.to_string(), why);
            continue;
        };
        for (user, given) in &answer.one_time_keys {
            if wishes.contains_key(user) {
                keys.insert(user.to_string(), json!(given));
            }
        }
    }
    drop(answers);
    Ok(json!({ "one_time_keys": keys, "failures": failures }))
}
