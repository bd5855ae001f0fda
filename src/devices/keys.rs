//! Keys of devices: asked for, handed out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId,
    api::federation::keys::claim_keys,
};
use serde_json::{Map, Value, json};

use super::{Error, lists, upload};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, LogEntry, UserNid, device_keys},
    users::tokens::Session,
};

/// Users in one question, devices in one claim.
const MANY: usize = 2_000;
/// Peers asked at the same time.
const PEERS_AT_ONCE: usize = 20;
/// The longest that peers may take.
const PATIENCE: Duration = Duration::from_secs(30);

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
    if asked.len() > MANY {
        return Err(Error::Invalid("too many users in one question".to_owned()));
    }
    let known = ctx
        .db
        .ids
        .find_users(asked.keys().map(|user| &**user))
        .await?;
    let users = asked
        .keys()
        .filter_map(|user| Some((known.get(user)?.0, user)));
    let users: BTreeMap<i64, &OwnedUserId> = users.collect();
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
    let added = Added::new(ctx, &signatures).await?;
    for (nid, device, name, body) in devices {
        let Some(user) = users.get(&nid) else {
            continue;
        };
        let wanted = &asked[*user];
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted.as_str() == device) {
            continue;
        }
        let mut key: Value = serde_json::from_str(&body).unwrap_or_default();
        added.put((nid, &device), &mut key);
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
            added.put((nid, &public), &mut key);
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

/// A signature: signer, id of its key, base64.
type Signature<'a> = (OwnedUserId, &'a str, &'a str);

/// Signatures that were added to keys.
struct Added<'a> {
    /// By owner, and device id or public part.
    by_key: HashMap<(i64, &'a str), Vec<Signature<'a>>>,
}

impl<'a> Added<'a> {
    async fn new(
        ctx: &Context,
        signatures: &'a [(i64, String, i64, String, String)],
    ) -> Result<Self, Error> {
        let signers = signatures.iter();
        let signers: Vec<_> = signers
            .map(|(_, _, signer, ..)| storage::UserNid(*signer))
            .collect();
        let signers = ctx.db.ids.user_ids_of(&signers).await?;
        let mut by_key: HashMap<_, Vec<Signature<'a>>> = HashMap::new();
        for ((owner, target, _, key_id, signature), signer) in signatures.iter().zip(signers) {
            let of_key = by_key.entry((*owner, &**target)).or_default();
            of_key.push((signer, &**key_id, &**signature));
        }
        Ok(Self { by_key })
    }

    /// Puts them into the object of a key.
    fn put(&self, key: (i64, &str), object: &mut Value) {
        for (signer, key_id, signature) in self.by_key.get(&key).into_iter().flatten() {
            object["signatures"][signer.as_str()][*key_id] = json!(signature);
        }
    }
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
    let with_key = |user: &&OwnedUserId| found.master_keys.contains_key(user.as_str());
    let asked = users.iter().filter(with_key).map(|user| &**user);
    let known = ctx.db.ids.find_users(asked).await?;
    let nids: BTreeMap<i64, OwnedUserId> =
        known.into_iter().map(|(user, nid)| (nid.0, user)).collect();
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

fn check_wishes(wishes: &Wishes) -> Result<(), Error> {
    if wishes.values().map(BTreeMap::len).sum::<usize>() > MANY {
        return Err(Error::Invalid("too many devices in one claim".to_owned()));
    }
    Ok(())
}

/// One-time keys of local devices; each is given once.
pub async fn claim_local(ctx: &Context, wishes: &Wishes) -> Result<Map<String, Value>, Error> {
    check_wishes(wishes)?;
    let known = ctx
        .db
        .ids
        .find_users(wishes.keys().map(|user| &**user))
        .await?;
    let (mut users, mut devices, mut algorithms) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = BTreeMap::new();
    for (user, wanted) in wishes {
        let Some(nid) = known.get(user) else {
            continue;
        };
        names.insert(nid.0, user);
        for (device, algorithm) in wanted {
            users.push(nid.0);
            devices.push(device.to_string());
            algorithms.push(algorithm.to_string());
        }
    }
    let mut tx = ctx.db.begin().await?;
    let columns = (&*users, &*devices, &*algorithms);
    let taken = device_keys::claim(&mut tx, columns, now_ms()).await?;
    // Syncs tell how many are left, and application services hear of it (MSC3202).
    let given: BTreeSet<i64> = taken.iter().map(|(user, ..)| *user).collect();
    let entries: Vec<LogEntry> = given
        .into_iter()
        .map(|user| upload::counts(UserNid(user)))
        .collect();
    if !entries.is_empty() {
        tx.log_all(&entries).await?;
    }
    tx.commit().await?;
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
    check_wishes(&wishes)?;
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
        for (user, mut given) in answer.one_time_keys {
            // What was not asked for is not passed on.
            let Some(wanted) = wishes.get(&user) else {
                continue;
            };
            given.retain(|device, _| wanted.contains_key(device));
            keys.insert(user.to_string(), json!(given));
        }
    }
    drop(answers);
    Ok(json!({ "one_time_keys": keys, "failures": failures }))
}
