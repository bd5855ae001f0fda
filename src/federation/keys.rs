//! Signing keys: our document, and the keys of peers (fetched, verified, kept).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use moka::sync::Cache;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet, verify_json},
};
use serde_json::json;

use super::{Client, Error};
use crate::{
    clock::now_ms,
    event::{self, keys::SigningKeys},
    storage::{self, Db, server_keys::ServerKey},
};

/// How long peers may keep our keys.
const VALID_MS: i64 = 24 * 3_600_000;
/// Keys are taken as valid for a week at most, whatever their owner says.
const VALID_LONGEST_MS: i64 = 7 * 24 * 3_600_000;
/// Servers asked for keys at the same time.
const FETCHES_MAX: usize = 20;
/// Keys of one server that are kept.
const KEYS_MAX: usize = 50;
/// How long a server whose keys could not be had is not asked again.
const NEGATIVE: Duration = Duration::from_mins(1);

/// `GET /_matrix/key/v2/server`: our keys, signed.
pub fn document(keys: &SigningKeys) -> Result<CanonicalJsonObject, event::Error> {
    let now = now_ms();
    let (mut current, mut old) = (serde_json::Map::new(), serde_json::Map::new());
    // Until a key goes out of use, the document is good for.
    let mut valid_until = now + VALID_MS;
    for key in keys.published() {
        let public = Base64::<ruma::serde::base64::Standard, _>::new(key.public.to_vec()).encode();
        match key.until {
            Some(until) if until <= now => {
                old.insert(key.id, json!({ "key": public, "expired_ts": until }));
            }
            until => {
                valid_until = valid_until.min(until.unwrap_or(i64::MAX));
                current.insert(key.id, json!({ "key": public }));
            }
        }
    }
    let document = json!({
        "server_name": keys.server_name,
        "verify_keys": current,
        "old_verify_keys": old,
        "valid_until_ts": valid_until,
    });
    let mut object: CanonicalJsonObject =
        serde_json::from_value(document).map_err(|error| event::Error::Json(error.to_string()))?;
    keys.sign_with_all(&mut object, now)?;
    Ok(object)
}

/// Keys of some servers, as far as they could be had.
#[derive(Clone, Debug, Default)]
pub struct KnownKeys(BTreeMap<OwnedServerName, Arc<Vec<ServerKey>>>);

impl KnownKeys {
    /// Whether one of those keys of a server is known.
    pub(super) fn has_any(&self, server: &ServerName, ids: &BTreeSet<String>) -> bool {
        let keys = self.0.get(server).map_or(&[][..], |keys| keys.as_slice());
        keys.iter().any(|key| ids.contains(&key.key_id))
    }

    /// Keys of one more server.
    pub(super) fn add(&mut self, server: OwnedServerName, keys: Arc<Vec<ServerKey>>) {
        self.0.insert(server, keys);
    }

    /// Those of them that are asked for; with `at`, those that were good then.
    pub fn select(
        &self,
        wanted: &BTreeMap<OwnedServerName, BTreeSet<String>>,
        at: Option<i64>,
    ) -> PublicKeyMap {
        let sets = wanted.iter().map(|(server, ids)| {
            let keys = self.0.get(server).map_or(&[][..], |keys| keys.as_slice());
            let fitting = keys
                .iter()
                .filter(|key| ids.contains(&key.key_id) && at.is_none_or(|at| key.was_good_at(at)));
            let set: PublicKeySet = fitting
                .map(|key| (key.key_id.clone(), Base64::new(key.public_key.clone())))
                .collect();
            (server.to_string(), set)
        });
        sets.collect()
    }
}

/// Keys of peers.
#[derive(Debug)]
pub(super) struct PeerKeys {
    db: Db,
    own: Arc<SigningKeys>,
    cache: Cache<OwnedServerName, Arc<Vec<ServerKey>>>,
    failed: Cache<OwnedServerName, ()>,
}

impl PeerKeys {
    pub(super) fn new(db: Db, own: Arc<SigningKeys>) -> Self {
        let cache = Cache::builder()
            .max_capacity(20_000)
            .time_to_live(Duration::from_hours(1))
            .build();
        let failed = Cache::builder()
            .max_capacity(20_000)
            .time_to_live(NEGATIVE)
            .build();
        Self {
            db,
            own,
            cache,
            failed,
        }
    }

    pub(super) async fn map(
        &self,
        client: &Client,
        needed: &BTreeMap<OwnedServerName, BTreeSet<String>>,
    ) -> KnownKeys {
        let jobs: Vec<_> = needed
            .iter()
            .map(|(server, ids)| self.of_server(client, server, ids))
            .collect();
        let sets: Vec<_> = stream::iter(jobs).buffered(FETCHES_MAX).collect().await;
        KnownKeys(needed.keys().cloned().zip(sets).collect())
    }

    async fn of_server(
        &self,
        client: &Client,
        server: &OwnedServerName,
        ids: &BTreeSet<String>,
    ) -> Arc<Vec<ServerKey>> {
        if *server == self.own.server_name {
            return Arc::new(self.own());
        }
        let mut known = self.known(server).await;
        let satisfied = |known: &[ServerKey]| {
            ids.iter().any(|id| {
                known
                    .iter()
                    .any(|key| key.key_id == *id && key.is_usable(now_ms()))
            })
        };
        if !satisfied(&known) && !ids.is_empty() && !self.failed.contains_key(server) {
            match self.fetch(client, server).await {
                Ok(fresh) => known = fresh,
                // It may be allowed at any moment.
                Err(Error::Refused(_)) => {}
                Err(error) => {
                    tracing::info!(%error, %server, "signing keys could not be had");
                    self.failed.insert(server.clone(), ());
                }
            }
        }
        known
    }

    /// The newest key document of a peer as it signed it, good until `until` if it can be had.
    pub(super) async fn document(
        &self,
        client: &Client,
        server: &OwnedServerName,
        until: i64,
    ) -> Result<Option<String>, Error> {
        let mut conn = self.db.conn().await?;
        let kept = storage::server_keys::find_document(&mut conn, server).await?;
        drop(conn);
        if let Some((body, valid_until)) = &kept
            && *valid_until >= until.max(now_ms())
        {
            return Ok(Some(body.clone()));
        }
        if !self.failed.contains_key(server) {
            match self.fetch(client, server).await {
                Ok(_) => {
                    let mut conn = self.db.conn().await?;
                    let fresh = storage::server_keys::find_document(&mut conn, server).await?;
                    return Ok(fresh.map(|(body, _)| body));
                }
                Err(Error::Storage(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::info!(%error, %server, "signing keys could not be had");
                    self.failed.insert(server.clone(), ());
                }
            }
        }
        // What we have of a server that is gone still verifies what it signed then.
        Ok(kept.map(|(body, _)| body))
    }

    fn own(&self) -> Vec<ServerKey> {
        let published = self.own.published().into_iter();
        let keys = published.map(|key| ServerKey {
            key_id: key.id,
            public_key: key.public.to_vec(),
            valid_until_ts: i64::MAX,
            expired_ts: key.until,
            fetched_ts: now_ms(),
        });
        keys.collect()
    }

    async fn known(&self, server: &OwnedServerName) -> Arc<Vec<ServerKey>> {
        if let Some(keys) = self.cache.get(server) {
            return keys;
        }
        let stored = async {
            let mut conn = self.db.conn().await?;
            storage::server_keys::list(&mut conn, server).await
        };
        let keys = Arc::new(stored.await.unwrap_or_else(|error| {
            tracing::error!(%error, "stored signing keys could not be read");
            Vec::new()
        }));
        if !keys.is_empty() {
            self.cache.insert(server.clone(), keys.clone());
        }
        keys
    }

    async fn fetch(
        &self,
        client: &Client,
        server: &OwnedServerName,
    ) -> Result<Arc<Vec<ServerKey>>, Error> {
        let body = client.get_json(server, "/_matrix/key/v2/server").await?;
        let fresh = parse(server, &body, now_ms()).map_err(|reason| Error::Nonsense {
            server: server.to_string(),
            reason,
        })?;
        let mut conn = self.db.conn().await?;
        storage::server_keys::upsert(&mut conn, server, &fresh).await?;
        if let (Ok(text), Some(key)) = (std::str::from_utf8(&body), fresh.first()) {
            let times = (key.valid_until_ts, now_ms());
            storage::server_keys::upsert_document(&mut conn, server, text, times).await?;
        }
        let all = Arc::new(storage::server_keys::list(&mut conn, server).await?);
        self.cache.insert(server.clone(), all.clone());
        Ok(all)
    }
}

/// Reads a key document: it must be of that server, and signed by each key it names.
pub(super) fn parse(server: &ServerName, body: &[u8], now: i64) -> Result<Vec<ServerKey>, String> {
    let object: CanonicalJsonObject =
        serde_json::from_slice(body).map_err(|_| "not canonical JSON".to_owned())?;
    let named = object
        .get("server_name")
        .and_then(CanonicalJsonValue::as_str);
    if named != Some(server.as_str()) {
        return Err("the keys are of another server".to_owned());
    }
    let valid_until = object
        .get("valid_until_ts")
        .and_then(CanonicalJsonValue::as_integer)
        .map_or(0, i64::from)
        .min(now + VALID_LONGEST_MS);
    let mut keys = Vec::new();
    let mut current = PublicKeySet::new();
    for (list, old) in [("verify_keys", false), ("old_verify_keys", true)] {
        let entries = object.get(list).and_then(CanonicalJsonValue::as_object);
        for (key_id, entry) in entries.into_iter().flatten().take(KEYS_MAX) {
            let entry = entry.as_object().ok_or("a key is no object")?;
            let text = entry
                .get("key")
                .and_then(CanonicalJsonValue::as_str)
                .ok_or("no key")?;
            let public: Base64 = Base64::parse(text).map_err(|_| "a key is not base64")?;
            if !key_id.starts_with("ed25519:") || public.as_bytes().len() != 32 {
                continue;
            }
            let expired = entry
                .get("expired_ts")
                .and_then(CanonicalJsonValue::as_integer)
                .map(i64::from);
            if !old {
                current.insert(key_id.clone(), public.clone());
            }
            keys.push(ServerKey {
                key_id: key_id.clone(),
                public_key: public.as_bytes().to_vec(),
                valid_until_ts: valid_until,
                expired_ts: if old {
                    Some(expired.unwrap_or(0))
                } else {
                    None
                },
                fetched_ts: now,
            });
        }
    }
    if current.is_empty() {
        return Err("no usable key".to_owned());
    }
    // What has no signature has no wrong one either.
    let signed_with = object
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|signatures| signatures.get(server.as_str()))
        .and_then(CanonicalJsonValue::as_object);
    if !signed_with.is_some_and(|ids| current.keys().any(|id| ids.contains_key(id))) {
        return Err("not signed with a key that it names".to_owned());
    }
    verify_json(&[(server.to_string(), current)].into(), &object)
        .map_err(|error| error.to_string())?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::{SigningKeys, document, parse};
    use crate::clock::now_ms;

    fn keys() -> SigningKeys {
        SigningKeys::parse(server_name!("a.example"), &SigningKeys::generate("k1")).unwrap()
    }

    #[test]
    fn our_own_document_passes_our_own_check() {
        let keys = keys();
        let body = serde_json::to_vec(&document(&keys).unwrap()).unwrap();
        let parsed = parse(server_name!("a.example"), &body, now_ms()).unwrap();
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].key_id, "ed25519:k1");
        assert_eq!(parsed[0].public_key, keys.public_key());
    }

    #[test]
    fn forged_documents_are_refused() {
        let mut object = document(&keys()).unwrap();
        let body = serde_json::to_vec(&object).unwrap();
        assert!(
            parse(server_name!("b.example"), &body, 0).is_err(),
            "another server's"
        );
        object.insert(
            "valid_until_ts".to_owned(),
            ruma::CanonicalJsonValue::Integer(1.into()),
        );
        let body = serde_json::to_vec(&object).unwrap();
        assert!(
            parse(server_name!("a.example"), &body, 0).is_err(),
            "changed after signing"
        );
        for signatures in [
            "{}",
            r#"{"a.example":{}}"#,
            r#"{"b.example":{"ed25519:k1":"AAAA"}}"#,
        ] {
            let mut object = document(&keys()).unwrap();
            let signatures = serde_json::from_str(signatures).unwrap();
            object.insert("signatures".to_owned(), signatures);
            let body = serde_json::to_vec(&object).unwrap();
            assert!(
                parse(server_name!("a.example"), &body, 0).is_err(),
                "not signed"
            );
        }
        for body in [&b"{}"[..], b"[]", b"", b"{\"server_name\":\"a.example\"}"] {
            assert!(parse(server_name!("a.example"), body, 0).is_err());
        }
    }
}
