//! Large answers of peers, read as they come: events are parsed and verified while the rest is still
//! on its way, and nothing is held twice.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read},
};

use futures_util::{StreamExt, TryStreamExt};
use ruma::ServerName;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::verify_all;
use crate::{
    event::{pdu::Pdu, version::RoomVersion},
    rooms::{Error, Rooms},
};

/// Bytes of one answer.
const BYTES_MAX: u64 = 400 << 20;
/// Events of one answer; more is no room but an attack.
const EVENTS_MAX: usize = 500_000;
/// Events that are verified together.
const CHUNK: usize = 250;
/// Chunks that are verified at the same time.
const CHUNKS_AT_ONCE: usize = 6;

/// Lists of events in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum List {
    /// State of a room.
    #[default]
    State,
    /// The auth chain of that.
    AuthChain,
}

impl List {
    fn of(key: &str) -> Option<Self> {
        match key {
            "state" | "pdus" => Some(Self::State),
            "auth_chain" => Some(Self::AuthChain),
            _ => None,
        }
    }
}

/// An answer, its events verified (checks 1 to 3 of receipt); those that fail are left out.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Events by list, in no order.
    pub(super) events: HashMap<List, Vec<Pdu>>,
    /// Everything else.
    pub(super) rest: Map<String, Value>,
}

impl Answer {
    /// Takes a list out.
    pub(super) fn take(&mut self, list: List) -> Vec<Pdu> {
        self.events.remove(&list).unwrap_or_default()
    }
}

type Chunk = (List, Vec<Box<RawValue>>);

/// Reads and verifies an answer with the state of a room.
pub(super) async fn read(
    (rooms, via): (&Rooms, &ServerName),
    response: reqwest::Response,
    version: &RoomVersion,
) -> Result<Answer, Error> {
    let (sender, receiver) = mpsc::channel::<Chunk>(CHUNKS_AT_ONCE);
    let body = response.bytes_stream().map_err(io::Error::other);
    let body = SyncIoBridge::new(StreamReader::new(body));
    let parsed = tokio::task::spawn_blocking(move || parse(body, &sender));
    let chunks = tokio_stream(receiver).map(|(list, raw)| async move {
        let pdus = verify_all(rooms, via, &raw, version).await;
        (list, pdus)
    });
    let mut answer = Answer::default();
    let mut verified = std::pin::pin!(chunks.buffer_unordered(CHUNKS_AT_ONCE));
    while let Some((list, pdus)) = verified.next().await {
        answer.events.entry(list).or_default().extend(pdus);
    }
    answer.rest = parsed
        .await
        .map_err(|error| Error::Remote(error.to_string()))?
        .map_err(|error| Error::Remote(format!("the peer's answer: {error}")))?;
    Ok(answer)
}

fn tokio_stream(receiver: mpsc::Receiver<Chunk>) -> impl futures_util::Stream<Item = Chunk> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    })
}

/// Parses on a thread of its own; gives events away in chunks and returns what else there is.
fn parse(
    body: impl Read,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<Map<String, Value>, serde_json::Error> {
    let bounded = io::BufReader::with_capacity(64 << 10, body.take(BYTES_MAX));
    let mut json = serde_json::Deserializer::from_reader(bounded);
    let mut count = 0;
    let rest = json.deserialize_map(Top {
        chunks,
        count: &mut count,
    })?;
    json.end()?;
    Ok(rest)
}

struct Top<'a> {
    chunks: &'a mpsc::Sender<Chunk>,
    count: &'a mut usize,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut rest = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(list) = List::of(&key) {
                map.next_value_seed(Events {
                    list,
                    chunks: self.chunks,
                    count: self.count,
                })?;
            } else {
                rest.insert(key, map.next_value()?);
            }
        }
        Ok(rest)
    }
}

/// One list of events.
struct Events<'a> {
    list: List,
    chunks: &'a mpsc::Sender<Chunk>,
    count: &'a mut usize,
}

impl Events<'_> {
    fn give<E: serde::de::Error>(&self, chunk: &mut Vec<Box<RawValue>>) -> Result<(), E> {
        let chunk = std::mem::take(chunk);
        self.chunks
            .blocking_send((self.list, chunk))
            .map_err(|_| E::custom("nobody waits for the answer any more"))
    }
}

impl<'de> DeserializeSeed<'de> for Events<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut chunk = Vec::with_capacity(CHUNK);
        while let Some(event) = seq.next_element::<Box<RawValue>>()? {
            *self.count += 1;
            if *self.count > EVENTS_MAX {
                return Err(serde::de::Error::custom("too many events"));
            }
            chunk.push(event);
            if chunk.len() == CHUNK {
                self.give(&mut chunk)?;
            }
        }
        if !chunk.is_empty() {
            self.give(&mut chunk)?;
        }
        Ok(())
    }
}
