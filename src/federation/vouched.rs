//! Keys of servers that we have nothing to do with, as a peer vouches for them.
//!
//! Such servers are not asked for anything, and yet rooms that we are in hold events of their users,
//! on which others lean. The peer that gives us such events is asked for the keys (specification,
//! "Querying keys through another server"). It could make them up: so they are kept apart, in
//! memory, for what that peer gives, and count only while the server is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use moka::sync::Cache;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, signatures::verify_json,
};
use serde_json::json;

use super::{
    Client, Error,
    keys::{KnownKeys, parse},
};
use crate::{clock::now_ms, storage::server_keys::ServerKey};

/// Servers in one question.
const SERVERS_MAX: usize = 100;
/// Questions for one batch of events.
const QUESTIONS_MAX: usize = 10;
/// Key documents that are remembered, or remembered as not to be had.
const CACHED_MAX: u64 = 10_000;
/// How long.
const CACHED: Duration = Duration::from_hours(1);
/// How long it is remembered that a peer does not vouch for a server.
const NEGATIVE: Duration = Duration::from_mins(5);
/// Bytes of an answer.
const BODY_MAX: usize = 4 << 20;

/// Peer that vouches, and the server it vouches for.
type Pair = (OwnedServerName, OwnedServerName);

/// What peers vouched for.
#[derive(Debug)]
pub(super) struct Vouched {
    keys: Cache<Pair, Arc<Vec<ServerKey>>>,
    unknown: Cache<Pair, ()>,
}

impl Vouched {
    pub(super) fn new() -> Self {
        let cache = Cache::builder().max_capacity(CACHED_MAX);
        Self {
            keys: cache.time_to_live(CACHED).build(),
            unknown: Cache::builder()
                .max_capacity(CACHED_MAX)
                .time_to_live(NEGATIVE)
                .build(),
        }
    }

    /// Adds to `known` what is needed of refused servers and was not known.
    pub(super) async fn complete(
        &self,
        client: &Client,
        needed: &BTreeMap<OwnedServerName, BTreeSet<String>>,
        via: &ServerName,
        known: &mut KnownKeys,
    ) {
        let gate = client.gate();
        let lacking = needed
            .iter()
            .filter(|(server, ids)| !known.has_any(server, ids) && !gate.allows(server));
        let lacking: Vec<&OwnedServerName> = lacking.map(|(server, _)| server).collect();
        if lacking.is_empty() || !gate.allows(via) {
            return;
        }
        let pair = |server: &ServerName| (via.to_owned(), server.to_owned());
        let unasked: Vec<&OwnedServerName> = lacking
            .iter()
            .copied()
            .filter(|server| {
                let pair = pair(server);
                !self.keys.contains_key(&pair) && !self.unknown.contains_key(&pair)
            })
            .collect();
        for part in unasked.chunks(SERVERS_MAX).take(QUESTIONS_MAX) {
            let answer = ask(client, via, part).await.unwrap_or_else(|error| {
                tracing::info!(%error, %via, "a peer does not vouch for keys");
                BTreeMap::new()
            });
            for server in part {
                match answer.get(*server) {
                    Some(keys) => self.keys.insert(pair(server), keys.clone()),
                    None => self.unknown.insert(pair(server), ()),
                }
            }
        }
        for server in lacking {
            if let Some(keys) = self.keys.get(&pair(server)) {
                known.add(server.clone(), keys);
            }
        }
    }
}

/// Asks a peer. Documents are signed by the server they are of, and by the peer.
async fn ask(
    client: &Client,
    via: &ServerName,
    servers: &[&OwnedServerName],
) -> Result<BTreeMap<OwnedServerName, Arc<Vec<ServerKey>>>, Error> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        server_keys: Vec<CanonicalJsonObject>,
    }
    let wanted: BTreeMap<&str, _> = servers
        .iter()
        .map(|server| (server.as_str(), json!({})))
        .collect();
    let question = json!({ "server_keys": wanted }).to_string();
    let path = "/_matrix/key/v2/query";
    let body = client.post_json(via, path, question, BODY_MAX).await?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| Error::Nonsense {
        server: via.to_string(),
        reason: error.to_string(),
    })?;
    let mut found = BTreeMap::new();
    for document in answer.server_keys.into_iter().take(servers.len()) {
        let named = document
            .get("server_name")
            .and_then(CanonicalJsonValue::as_str);
        let Some(server) = servers
            .iter()
            .copied()
            .find(|server| Some(server.as_str()) == named)
        else {
            continue;
        };
        let (Some(by_peer), Some(by_owner)) = (of(&document, via), of(&document, server)) else {
            continue;
        };
        if !is_signed(client, via, &by_peer).await {
            continue;
        }
        let body = serde_json::to_vec(&by_owner).unwrap_or_default();
        match parse(server, &body, now_ms()) {
            Ok(keys) => {
                found.insert(server.clone(), Arc::new(keys));
            }
            Err(why) => tracing::info!(why, %server, %via, "a peer vouches for wrong keys"),
        }
    }
    Ok(found)
}

/// A document with the signatures of one server and no others; `None`: that server has not signed.
fn of(document: &CanonicalJsonObject, server: &ServerName) -> Option<CanonicalJsonObject> {
    let signatures = document.get("signatures")?.as_object()?;
    let of_server = signatures.get(server.as_str())?.clone();
    let of_server = CanonicalJsonObject::from([(server.to_string(), of_server)]);
    let mut document = document.clone();
    let key = "signatures".to_owned();
    document.insert(key, CanonicalJsonValue::Object(of_server));
    Some(document)
}

async fn is_signed(client: &Client, via: &ServerName, document: &CanonicalJsonObject) -> bool {
    let ids = document
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|signatures| signatures.get(via.as_str()))
        .and_then(CanonicalJsonValue::as_object)
        .map(|of_peer| of_peer.keys().cloned().collect())
        .unwrap_or_default();
    let needed = [(via.to_owned(), ids)].into();
    let keys = client.keys().known(&needed).await;
    verify_json(&keys.select(&needed, Some(now_ms())), document).is_ok()
}
