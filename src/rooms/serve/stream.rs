//! Large answers for peers, written as they are read: the state of a room of any size passes through
//! memory in small pieces.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Map, Value};

use crate::{
    rooms::{Error, Rooms},
    storage,
};

/// Events read at once.
const AT_ONCE: usize = 500;

/// A part of an answer.
enum Piece {
    Text(String),
    /// State events, and whether they begin their list.
    Events(Vec<i64>, bool),
}

/// An answer: fields, then lists of state events by number.
#[derive(Debug)]
pub struct Answer {
    /// Everything but events.
    pub fields: Map<String, Value>,
    /// Name and events.
    pub lists: Vec<(&'static str, Vec<i64>)>,
}

impl Answer {
    fn pieces(self) -> VecDeque<Piece> {
        let mut pieces = VecDeque::new();
        let mut open = Value::Object(self.fields).to_string();
        open.pop();
        for (name, nids) in self.lists {
            let comma = if open.ends_with('{') { "" } else { "," };
            pieces.push_back(Piece::Text(format!("{open}{comma}\"{name}\":[")));
            for (at, chunk) in nids.chunks(AT_ONCE).enumerate() {
                pieces.push_back(Piece::Events(chunk.to_vec(), at == 0));
            }
            "]".clone_into(&mut open);
        }
        open.push('}');
        pieces.push_back(Piece::Text(open));
        pieces
    }

    /// The JSON, piece by piece.
    pub fn stream(
        self,
        rooms: &Rooms,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        let state = (rooms.clone(), self.pieces());
        stream::try_unfold(state, |(rooms, mut pieces)| async move {
            let piece = match pieces.pop_front() {
                None => return Ok(None),
                Some(Piece::Text(text)) => Bytes::from(text),
                Some(Piece::Events(nids, is_first)) => events(&rooms, &nids, is_first).await?,
            };
            Ok(Some((piece, (rooms, pieces))))
        })
    }
}

async fn events(rooms: &Rooms, nids: &[i64], is_first: bool) -> Result<Bytes, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let bodies = storage::events::list_state_json(&mut conn, nids).await?;
    let mut text = String::with_capacity(bodies.iter().map(|body| body.len() + 1).sum());
    for (at, body) in bodies.iter().enumerate() {
        if at > 0 || !is_first {
            text.push(',');
        }
        text.push_str(body);
    }
    Ok(Bytes::from(text))
}
