//! Questions to application services: whether a user or an alias is there, and what they know of
//! other networks.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use ruma::{RoomAliasId, UserId};
use serde_json::{Map, Value, json};

use super::{Services, call::segment};
use crate::config::Appservice;

/// Services that are asked at the same time for one answer.
const AT_ONCE: usize = 8;
/// Entries of an answer about another network.
const ENTRIES_MAX: usize = 1_000;

impl Services {
    /// Whether a service says that a user of its, whom we do not know, is there. It makes the user
    /// before it answers.
    pub async fn has_made_user(&self, user: &UserId) -> bool {
        let path = format!("/users/{}", segment(user.as_str()));
        let is_its = |it: &Appservice| it.has_user(user) && *user != it.sender;
        self.any_says(user.as_str(), &path, is_its).await
    }

    /// Whether a service says that an alias of its, which we do not know, is there. It makes the
    /// alias before it answers.
    pub async fn has_made_alias(&self, alias: &RoomAliasId) -> bool {
        let path = format!("/rooms/{}", segment(alias.as_str()));
        let is_its = |it: &Appservice| it.has_alias(alias);
        self.any_says(alias.as_str(), &path, is_its).await
    }

    /// Asks one after the other; whoever asks the same meanwhile gets the same answer.
    async fn any_says(&self, id: &str, path: &str, is_its: impl Fn(&Appservice) -> bool) -> bool {
        let its: Vec<_> = self
            .all()
            .iter()
            .filter(|service| service.url.is_some() && is_its(service))
            .collect();
        if its.is_empty() {
            return false;
        }
        let ask = async {
            let Some(_place) = self.place().await else {
                return false;
            };
            for service in its {
                match self.exists(service, path).await {
                    Ok(true) => return true,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::info!(%error, service = service.id, "a question was not answered");
                    }
                }
            }
            false
        };
        self.0.answers.get_with(id.to_owned(), ask).await
    }

    /// The networks that services know (`GET /thirdparty/protocols`), or one of them.
    pub async fn protocols(&self, only: Option<&str>) -> Map<String, Value> {
        let mut asked = Vec::new();
        for service in self.all() {
            for protocol in &service.protocols {
                if only.is_none_or(|only| only == protocol) {
                    asked.push((protocol.clone(), service.clone()));
                }
            }
        }
        let ask = |(protocol, service): (String, Arc<Appservice>)| async move {
            let path = format!("/thirdparty/protocol/{}", segment(&protocol));
            let answer = self.ask(&service, &path, &[]).await;
            let answer = answer.filter(Value::is_object);
            answer.map(|answer| (protocol, with_instance_ids(&service, answer)))
        };
        let asked = asked.into_iter().take(ENTRIES_MAX);
        let answers = stream::iter(asked.map(ask)).buffered(AT_ONCE);
        let answers: Vec<_> = answers.collect().await;
        let mut found: Map<String, Value> = Map::new();
        for (protocol, answer) in answers.into_iter().flatten() {
            match found.get_mut(&protocol) {
                // Several services for one network: their instances stand side by side.
                Some(known) => {
                    let more = answer["instances"].as_array().cloned().unwrap_or_default();
                    if let Some(instances) = known["instances"].as_array_mut() {
                        instances.extend(more);
                    }
                }
                None => {
                    found.insert(protocol, answer);
                }
            }
        }
        found
    }

    /// Users or places of other networks (`kind`: `user` or `location`): with `protocol` by fields,
    /// else by what they are here.
    pub async fn third_party_entries(
        &self,
        kind: &str,
        protocol: Option<&str>,
        query: &[(String, String)],
    ) -> Vec<Value> {
        let mut path = format!("/thirdparty/{kind}");
        if let Some(protocol) = protocol {
            path = format!("{path}/{}", segment(protocol));
        }
        let knows = |service: &&Arc<Appservice>| match protocol {
            Some(protocol) => service.protocols.iter().any(|known| known == protocol),
            None => !service.protocols.is_empty(),
        };
        let path = &path;
        let ask = |service: Arc<Appservice>| async move { self.ask(&service, path, query).await };
        let services: Vec<Arc<Appservice>> = self.all().iter().filter(knows).cloned().collect();
        let answers = stream::iter(services.into_iter().map(ask)).buffered(AT_ONCE);
        let answers: Vec<_> = answers.collect().await;
        let mut entries = Vec::new();
        for answer in answers.into_iter().flatten() {
            if let Value::Array(more) = answer {
                entries.extend(more.into_iter().filter(Value::is_object));
            }
        }
        entries.truncate(ENTRIES_MAX);
        entries
    }

    async fn ask(
        &self,
        service: &Appservice,
        path: &str,
        query: &[(String, String)],
    ) -> Option<Value> {
        let _place = self.place().await?;
        match self.third_party(service, path, query).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::info!(%error, service = service.id, "a question was not answered");
                None
            }
        }
    }
}

/// Each instance of a network gets the id under which clients ask for its rooms.
fn with_instance_ids(service: &Appservice, mut protocol: Value) -> Value {
    if !protocol["instances"].is_array() {
        protocol["instances"] = json!([]);
    }
    for instance in protocol["instances"].as_array_mut().into_iter().flatten() {
        if let Some(network) = instance["network_id"].as_str() {
            let id = instance_id(&service.id, network);
            instance["instance_id"] = json!(id);
        }
    }
    protocol
}

/// The id of a network of a service, as clients know it.
pub fn instance_id(service: &str, network: &str) -> String {
    format!("{service}|{network}")
}
