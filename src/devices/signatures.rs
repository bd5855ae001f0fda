//! Signatures that users add to keys: of their own devices, and to master keys of others whom they
//! verified.

use std::collections::{BTreeMap, HashMap};

use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use super::{BYTES_MAX, Error, cross_signing::public_part, signed::is_signed};
use crate::{
    context::Context,
    storage::{Tx, UserNid, device_keys, device_lists},
    users::{announce, tokens::Session},
};

/// Keys signed in one request.
const SIGNED_MAX: usize = 1_000;
/// Signatures on one of them.
const ON_ONE_MAX: usize = 20;

/// Why a signature is not taken.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// There is no such key.
    Unknown,
    /// It is none.
    Invalid(&'static str),
}

impl Refusal {
    fn body(self) -> Value {
        let (code, why) = match self {
            Self::Unknown => ("M_NOT_FOUND", "no such key"),
            Self::Invalid(why) => ("M_INVALID_SIGNATURE", why),
        };
        json!({ "errcode": code, "error": why })
    }
}

/// Keys that may be signed, and those that may sign.
struct Known {
    signer: OwnedUserId,
    /// By user and device id or public part.
    targets: HashMap<(OwnedUserId, String), Value>,
    /// Public parts by key id.
    signing: HashMap<String, String>,
    users: HashMap<OwnedUserId, UserNid>,
}

/// Adds signatures (`POST /keys/signatures/upload`): of the asking user on its own devices and keys,
/// and on master keys of others. The answer tells what was not taken.
pub async fn add(ctx: &Context, session: &Session, body: &Value) -> Result<Value, Error> {
    let given: BTreeMap<OwnedUserId, Map<String, Value>> = serde_json::from_value(body.clone())
        .map_err(|_| Error::Invalid("an object of users is needed".to_owned()))?;
    if given.values().map(Map::len).sum::<usize>() > SIGNED_MAX {
        return Err(Error::Invalid("too many keys in one request".to_owned()));
    }
    let mut failures: Map<String, Value> = Map::new();
    let (mut own, mut others, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let mut tx = ctx.db.begin().await?;
    let known = look(ctx, &mut tx, session, given.keys()).await?;
    for (user, keys) in &given {
        for (target, key) in keys {
            let found = known.check(user, target, key);
            let (owner, signatures) = match found {
                Ok(found) => found,
                Err(why) => {
                    let of_user = failures.entry(user.to_string());
                    of_user.or_insert_with(|| json!({}))[target] = why.body();
                    continue;
                }
            };
            if owner == session.user_nid {
                own.push(target.as_str());
            } else {
                others.push(owner.0);
            }
            let rows = signatures.into_iter();
            taken.extend(rows.map(|(id, signature)| (owner.0, target.clone(), id, signature)));
        }
    }
    if !taken.is_empty() {
        device_keys::upsert_signatures(&mut tx, session.user_nid, &taken).await?;
    }
    tell(ctx, &mut tx, session, &own).await?;
    if !others.is_empty() {
        announce::signatures(&mut tx, session.user_nid, &others).await?;
    }
    tx.commit().await?;
    Ok(json!({ "failures": failures }))
}

/// Reads what is known of the keys of some users, and the keys of the signer.
async fn look(
    ctx: &Context,
    tx: &mut Tx,
    session: &Session,
    users: impl Iterator<Item = &OwnedUserId>,
) -> Result<Known, Error> {
    let users = ctx.db.ids.find_users(users.map(|user| &**user)).await?;
    let names: HashMap<i64, &OwnedUserId> = users.iter().map(|(user, nid)| (nid.0, user)).collect();
    let mut all: Vec<i64> = names.keys().copied().collect();
    all.push(session.user_nid.0);
    let mut known = Known {
        signer: session.user_id.clone(),
        targets: HashMap::new(),
        signing: HashMap::new(),
        users: HashMap::new(),
    };
    let mut cross = device_keys::list_cross_signing(tx, &all).await?;
    cross.extend(device_lists::list_cross_keys(tx, &all).await?);
    for (owner, kind, body) in cross {
        let key: Value = serde_json::from_str(&body).unwrap_or_default();
        let Some(public) = public_part(&key) else {
            continue;
        };
        let is_own = owner == session.user_nid.0;
        if is_own {
            known
                .signing
                .insert(format!("ed25519:{public}"), public.clone());
        }
        if let Some(user) = names.get(&owner)
            && (is_own || kind == "master")
        {
            known.targets.insert(((*user).clone(), public), key);
        }
    }
    for (_, id, _, body) in device_keys::list(tx, &[session.user_nid.0]).await? {
        let key: Value = serde_json::from_str(&body).unwrap_or_default();
        let key_id = format!("ed25519:{id}");
        if let Some(public) = key["keys"][&key_id].as_str() {
            known.signing.insert(key_id, public.to_owned());
        }
        let target = (session.user_id.clone(), id);
        known.targets.insert(target, key);
    }
    known.users = users;
    Ok(known)
}

impl Known {
    /// The owner of a key, and the signatures of the signer on it: (key id, signature).
    fn check(
        &self,
        user: &UserId,
        target: &str,
        key: &Value,
    ) -> Result<(UserNid, Vec<(String, String)>), Refusal> {
        let owner = *self.users.get(user).ok_or(Refusal::Unknown)?;
        if key["user_id"] != user.as_str() {
            return Err(Refusal::Invalid("the key is of another user"));
        }
        if target.len() > 255 || key.to_string().len() > BYTES_MAX {
            return Err(Refusal::Invalid("too large"));
        }
        let given = key["signatures"][self.signer.as_str()].as_object();
        let given = given.filter(|given| !given.is_empty() && given.len() <= ON_ONE_MAX);
        let given = given.ok_or(Refusal::Invalid("no signature of yours"))?;
        let of_peer = user.server_name() != self.signer.server_name();
        let place = (user.to_owned(), target.to_owned());
        let object = match self.targets.get(&place) {
            Some(object) => object,
            // No copy is kept of who shares no room: the key has to be a master key, and is shown
            // only beside the same.
            None if of_peer
                && public_part(key).as_deref() == Some(target)
                && key["usage"] == json!(["master"]) =>
            {
                key
            }
            None => return Err(Refusal::Unknown),
        };
        let mut signatures = Vec::new();
        for (key_id, signature) in given {
            let Some(public) = self.signing.get(key_id) else {
                continue;
            };
            let signature = signature.as_str().unwrap_or_default();
            if !is_signed(object, public, signature) {
                return Err(Refusal::Invalid("the signature does not match"));
            }
            signatures.push((key_id.clone(), signature.to_owned()));
        }
        if signatures.is_empty() {
            return Err(Refusal::Invalid("no signature of a key of yours"));
        }
        Ok((owner, signatures))
    }
}

/// Tells everybody of signatures that were added to the user's own devices and keys.
async fn tell(ctx: &Context, tx: &mut Tx, session: &Session, signed: &[&str]) -> Result<(), Error> {
    if signed.is_empty() {
        return Ok(());
    }
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
