//! The tree of rooms below one, page by page, as a user may see it (`GET /hierarchy`).
//!
//! A page is found by walking from the root again, so that no node has to remember anything: what
//! peers told is kept meanwhile. A token is a number of rooms, bound to who asks and what for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedServerName, RoomId, UserId};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    Looking,
    children::{self, Child},
    known, ours,
    peers::{self, Answer},
    summary::Summary,
};
use crate::{
    rooms::{Error, Rooms, membership::join::candidates},
    storage::{UserNid, spaces::Known},
};

/// Rooms of one page, and how many are told where nothing is asked for.
const PAGE_MAX: usize = 50;
/// Bytes of links of one page: after that it ends, but not before its first room.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// How deep spaces are followed.
const DEPTH_MAX: u64 = 32;
/// Rooms that are looked at below one root.
const ROOMS_MAX: usize = 2_000;
/// Rooms that peers are asked for in one request, and how many of them at once.
const ASKED_MAX: usize = 64;
const ASKED_AT_ONCE: usize = 8;
/// Time for peers to answer, of one request; what they did not tell by then is left out.
const PEERS_TIME: Duration = Duration::from_secs(20);

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The root.
    pub room_id: &'a RoomId,
    /// Token of the page before.
    pub from: Option<&'a str>,
    /// Rooms at most.
    pub limit: Option<u64>,
    /// Depth at most.
    pub max_depth: Option<u64>,
    /// Only suggested rooms.
    pub suggested_only: bool,
}

/// A page: rooms, and the token of the next one.
pub async fn page(
    rooms: &Rooms,
    (user, user_nid): (&UserId, UserNid),
    question: Question<'_>,
) -> Result<(Vec<Value>, Option<String>), Error> {
    let bad = |what: &str| Error::InvalidParam(what.to_owned());
    let limit = match question.limit {
        Some(0) => return Err(bad("limit has to be greater than zero")),
        Some(limit) => usize::try_from(limit).map_or(PAGE_MAX, |limit| limit.min(PAGE_MAX)),
        None => PAGE_MAX,
    };
    let offset = match question.from {
        Some(token) => read_token(user, &question, token)
            .ok_or_else(|| bad("not a token of this user for these parameters"))?,
        None => 0,
    };
    let mut walk = Walk::start(rooms, (user, user_nid), &question).await?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    let mut at = 0;
    while let Some(node) = walk.next().await? {
        at += 1;
        if at <= offset {
            continue;
        }
        let links = node.children.iter().map(|child| child.bytes);
        bytes += links.sum::<usize>();
        if page.len() == limit || (bytes > PAGE_BYTES_MAX && !page.is_empty()) {
            let next = offset + page.len();
            return Ok((page, Some(token(user, &question, next))));
        }
        page.push(node.json());
    }
    if at == 0 {
        return Err(Error::Forbidden(
            "you are not allowed to view this room".to_owned(),
        ));
    }
    Ok((page, None))
}

/// A token is its number and what binds it: there is nothing to hide in it, and nothing to gain by
/// making one up.
fn token(user: &UserId, question: &Question<'_>, offset: usize) -> String {
    let mut hash = Sha256::new();
    let (suggested, depth) = (question.suggested_only, question.max_depth);
    let room = question.room_id;
    hash.update(format!("{user} {room} {suggested} {depth:?} {offset}"));
    let digest: [u8; 32] = hash.finalize().into();
    let bound = digest[..8].iter().map(|byte| format!("{byte:02x}"));
    format!("h{offset}_{}", bound.collect::<String>())
}

fn read_token(user: &UserId, question: &Question<'_>, text: &str) -> Option<usize> {
    let (offset, _) = text.strip_prefix('h')?.split_once('_')?;
    let offset: usize = offset.parse().ok()?;
    (token(user, question, offset) == text).then_some(offset)
}

/// A room of the tree.
struct Node {
    room: Summary,
    children: Vec<Child>,
}

impl Node {
    fn json(self) -> Value {
        let mut json: Map<String, Value> = self.room.json();
        let links: Vec<Value> = self.children.into_iter().map(|child| child.json).collect();
        json.insert("children_state".to_owned(), json!(links));
        Value::Object(json)
    }
}

/// A room to be looked at.
struct Step {
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    depth: u64,
}

/// A walk through the tree, depth first. Each room comes once, where it is met first.
struct Walk<'a> {
    rooms: &'a Rooms,
    looking: Looking,
    suggested_only: bool,
    depth_max: u64,
    /// What is left to do, the next at the end.
    stack: Vec<Step>,
    seen: HashSet<OwnedRoomId>,
    /// Rooms that we have a number for.
    known: HashMap<OwnedRoomId, Known>,
    /// What peers told of children of their spaces; `None`: that nobody here can see it.
    told: HashMap<OwnedRoomId, Option<Summary>>,
    /// What peers answered; `None`: nobody told.
    answers: HashMap<OwnedRoomId, Option<Arc<Answer>>>,
    until: Instant,
}

impl<'a> Walk<'a> {
    async fn start(
        rooms: &'a Rooms,
        (user, user_nid): (&UserId, UserNid),
        question: &Question<'_>,
    ) -> Result<Self, Error> {
        let root = question.room_id;
        let known = known(rooms, None, std::iter::once(root)).await?;
        let via = if known.get(root).is_some_and(|room| room.ours) {
            Vec::new()
        } else {
            candidates(rooms, root, user, &[]).await?
        };
        Ok(Self {
            rooms,
            looking: Looking::of(rooms, user_nid).await?,
            suggested_only: question.suggested_only,
            depth_max: question.max_depth.unwrap_or(DEPTH_MAX).min(DEPTH_MAX),
            stack: vec![Step {
                room_id: root.to_owned(),
                via,
                depth: 0,
            }],
            seen: HashSet::new(),
            known,
            told: HashMap::new(),
            answers: HashMap::new(),
            until: Instant::now() + PEERS_TIME,
        })
    }

    /// The next room that the user may see.
    async fn next(&mut self) -> Result<Option<Node>, Error> {
        while let Some(step) = self.stack.pop() {
            if self.seen.len() >= ROOMS_MAX {
                return Ok(None);
            }
            if !self.seen.insert(step.room_id.clone()) {
                continue;
            }
            let Some(mut node) = self.look(&step).await? else {
                continue;
            };
            if self.suggested_only {
                node.children.retain(|child| child.suggested);
            }
            if step.depth < self.depth_max {
                self.descend(&node.children, step.depth + 1).await?;
            }
            return Ok(Some(node));
        }
        Ok(None)
    }

    /// Puts children on top of what is to be done.
    async fn descend(&mut self, children: &[Child], depth: u64) -> Result<(), Error> {
        let unseen = children
            .iter()
            .filter(|child| !self.seen.contains(&child.room_id));
        let steps: Vec<Step> = unseen
            .map(|child| Step {
                room_id: child.room_id.clone(),
                via: child.via.clone(),
                depth,
            })
            .collect();
        let ids = steps.iter().map(|step| &*step.room_id);
        let ids = ids.filter(|id| !self.known.contains_key(*id));
        let found = known(self.rooms, None, ids).await?;
        self.known.extend(found);
        self.stack.extend(steps.into_iter().rev());
        Ok(())
    }

    /// The room of a step, if the user may see it.
    async fn look(&mut self, step: &Step) -> Result<Option<Node>, Error> {
        let known = self.known.get(&step.room_id);
        if let Some((room, summary)) = ours(self.rooms, known).await? {
            if !self.looking.may_see(&summary) {
                return Ok(None);
            }
            let children = if summary.is_space() {
                children::of_room(self.rooms, &room).await?
            } else {
                Vec::new()
            };
            return Ok(Some(Node {
                room: summary,
                children,
            }));
        }
        let node = self.look_at_peers(step).await;
        Ok(node.filter(|node| self.looking.may_see(&node.room)))
    }

    async fn look_at_peers(&mut self, step: &Step) -> Option<Node> {
        if self.needs_asking(step) {
            self.ask(step).await;
        }
        if let Some(Some(answer)) = self.answers.get(&step.room_id) {
            return Some(Node {
                room: answer.room.clone(),
                children: answer.children.clone(),
            });
        }
        let told = self.told.get(&step.room_id)?.as_ref()?;
        Some(Node {
            room: told.clone(),
            children: Vec::new(),
        })
    }

    /// Whether more is to be known of a room than what was told already.
    fn needs_asking(&self, step: &Step) -> bool {
        if self.answers.contains_key(&step.room_id) {
            return false;
        }
        match self.told.get(&step.room_id) {
            // Who is invited may be known to another server.
            Some(None) => self.looking.is_invited(&step.room_id),
            // Without its children a space is told only in part.
            Some(Some(room)) => room.is_space() && self.looking.may_see(room),
            None => true,
        }
    }

    /// Asks for a room, and for those that come next along with it.
    async fn ask(&mut self, step: &Step) {
        let ahead = self.stack.iter().rev().take(ASKED_AT_ONCE);
        let ahead = ahead.filter(|next| {
            let is_ours = self.known.get(&next.room_id).is_some_and(|room| room.ours);
            !is_ours && !self.seen.contains(&next.room_id) && self.needs_asking(next)
        });
        let left = ASKED_MAX.saturating_sub(self.answers.len());
        let mut steps: Vec<&Step> = std::iter::once(step).chain(ahead).collect();
        // The same room may come twice.
        let mut once = HashSet::new();
        steps.retain(|step| once.insert(&*step.room_id));
        steps.truncate(ASKED_AT_ONCE.min(left));
        let jobs = steps.into_iter().map(|step| async {
            let asking = peers::ask(self.rooms, &step.room_id, &step.via, self.suggested_only);
            let answer = tokio::time::timeout_at(self.until, asking).await;
            (step.room_id.clone(), answer.ok().flatten())
        });
        let answers = futures_util::future::join_all(jobs).await;
        for (room_id, answer) in answers {
            for room in answer.iter().flat_map(|answer| &answer.told) {
                let told = self.told.entry(room.room_id.clone());
                told.or_insert_with(|| Some(room.clone()));
            }
            for room in answer.iter().flat_map(|answer| &answer.inaccessible) {
                self.told.entry(room.clone()).or_insert(None);
            }
            self.answers.insert(room_id, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};

    use super::{Question, read_token, token};

    #[test]
    fn a_token_is_for_one_user_and_one_question() {
        let question = Question {
            room_id: room_id!("!r:x"),
            from: None,
            limit: Some(3),
            max_depth: None,
            suggested_only: false,
        };
        let user = user_id!("@a:x");
        let text = token(user, &question, 7);
        assert_eq!(read_token(user, &question, &text), Some(7));
        let other_limit = Question {
            limit: None,
            ..question
        };
        assert_eq!(read_token(user, &other_limit, &text), Some(7));
        assert_eq!(read_token(user_id!("@b:x"), &question, &text), None);
        for other in [
            Question {
                room_id: room_id!("!s:x"),
                ..question
            },
            Question {
                max_depth: Some(1),
                ..question
            },
            Question {
                suggested_only: true,
                ..question
            },
        ] {
            assert_eq!(read_token(user, &other, &text), None);
        }
        for broken in ["", "h", "h7", "h7_", "7_00", "h-1_00", &text[1..]] {
            assert_eq!(read_token(user, &question, broken), None, "{broken}");
        }
        assert_eq!(read_token(user, &question, &text.replace("h7", "h8")), None);
    }
}
