//! State resolution: one state out of several, with work that follows the conflict and not the
//! size of the room.
//!
//! [`problem`] is the pure part; here is what loads for it, what remembers answers, and what keeps
//! long work off the threads that serve requests.

pub mod problem;

mod graphs;
mod v1;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use tokio::sync::Semaphore;

pub(super) use self::graphs::{GRAPH_BYTES_MAX, Graph};
use self::problem::{Material, Problem, Unsolved, conflicted_keys};
use super::{
    Error, Rooms,
    resident::Room,
    state::{Entries, State},
};

/// Times that the algorithm may turn out to need events that were not loaded yet. What it needs is
/// known beforehand, but for auth events that came after the events which name them.
const ROUNDS_MAX: usize = 200;
/// Rounds of loading power levels down the mainline. Each reaches twice as far as the one before.
const LOADS_MAX: usize = 64;
/// Events loaded ahead of what is known to be needed.
const AHEAD_MAX: usize = 4_096;
/// Events loaded from the database at once.
const LOAD_AT_ONCE: usize = 2_000;
/// Resolutions remembered: weight, of which a small room takes one.
pub(super) const RESOLUTIONS_WEIGHT_MAX: u64 = 10_000;
/// From this many looked at (entries of states, events in conflict) work leaves the threads that
/// serve requests: it takes about a millisecond.
const LARGE: usize = 5_000;

/// Which states were resolved: the room, and each state in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question(i64, Vec<Part>);

/// A state in a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    Snapshot(i64),
    /// Of a state that has no snapshot: hash of its entries.
    Entries(u64, u64),
}

impl Question {
    fn new(room: &Room, states: &[State]) -> Self {
        let mut parts: Vec<Part> = states.iter().map(Part::of).collect();
        parts.sort_unstable();
        parts.dedup();
        Self(room.nid.0, parts)
    }
}

impl Part {
    fn of(state: &State) -> Self {
        if state.snap != 0 {
            return Self::Snapshot(state.snap);
        }
        // The numbers are ours: nobody can choose them so that hashes meet.
        let (mut one, mut other) = (DefaultHasher::new(), DefaultHasher::new());
        other.write_u8(1);
        for entry in state.entries.iter() {
            entry.hash(&mut one);
            entry.hash(&mut other);
        }
        Self::Entries(one.finish(), other.finish())
    }
}

/// Weight of a remembered resolution; most of its nodes it shares with states.
pub(super) fn weight(entries: &Entries) -> u32 {
    u32::try_from(1 + entries.len() / 50).unwrap_or(u32::MAX)
}

/// Room for long work: as many at a time as there are processors.
pub(super) fn workers() -> Arc<Semaphore> {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new(count))
}

/// Resolves states of one room. All their events are stored, but for those whose auth edges are
/// given in `fresh`, which are in memory.
pub(super) async fn resolve(
    rooms: &Rooms,
    room: &Room,
    states: &[State],
    fresh: &[(i64, Vec<i64>)],
) -> Result<Entries, Error> {
    let question = Question::new(room, states);
    if let Some(known) = rooms.0.resolutions.get(&question) {
        return Ok(known);
    }
    let states: Vec<Entries> = states.iter().map(|state| state.entries.clone()).collect();
    let resolved = answer(rooms, room, Arc::new(states), fresh).await?;
    rooms.0.resolutions.insert(question, resolved.clone());
    Ok(resolved)
}

async fn answer(
    rooms: &Rooms,
    room: &Room,
    states: Arc<Vec<Entries>>,
    fresh: &[(i64, Vec<i64>)],
) -> Result<Entries, Error> {
    let Some(first) = states.first() else {
        return Ok(Entries::new());
    };
    let size = states.iter().map(|state| state.len()).sum();
    let all = states.clone();
    let keys = rooms
        .off_thread(size, move || conflicted_keys(&all))
        .await?;
    if keys.is_empty() {
        return Ok(first.clone());
    }
    if room.version.rules.state_res.v2_rules().is_none() {
        return v1::resolve(rooms, room, &states, &keys).await;
    }
    let conflicted = states
        .iter()
        .flat_map(|state| keys.iter().filter_map(|key| state.get(key)));
    let events: Vec<i64> = first.values().chain(conflicted).copied().collect();
    let graph = rooms.auth_graph(room, &events, fresh).await?;
    let size = first.len() + states.len() * keys.len() + graph.len() / 10;
    let (version, with) = (room.version.clone(), graph.clone());
    let pose = move || Problem::new(&version, &states, &keys, &with.read());
    let problem = Arc::new(rooms.off_thread(size, pose).await?);
    solve(rooms, room, &problem, &graph).await
}

/// Loads what a problem needs, and has it solved.
async fn solve(
    rooms: &Rooms,
    room: &Room,
    problem: &Arc<Problem>,
    graph: &Graph,
) -> Result<Entries, Error> {
    let mut material = Material::default();
    load(rooms, room, problem.events(), &mut material).await?;
    for key in problem.keys(&material) {
        let ids = &rooms.ctx().db.ids;
        let number = ids.find_skey(&key.0.to_string(), &key.1).await?;
        material.add_key(key, number.map(|number| number.0));
    }
    for round in 0..LOADS_MAX {
        let lacking = problem.lacking(&graph.read(), &material);
        if lacking.is_empty() {
            break;
        }
        let ahead = graph.read().generations(&lacking, round * 2, AHEAD_MAX);
        let lacking = if ahead.len() > lacking.len() {
            ahead
        } else {
            lacking
        };
        load(rooms, room, &lacking, &mut material).await?;
    }
    // An event takes a few microseconds, authorization some ten.
    let size = problem.events().len() * 50;
    for _ in 0..ROUNDS_MAX {
        let task = problem.clone();
        let work = move || (task.solve(&material), material);
        let (solved, used) = rooms.off_thread(size, work).await?;
        material = used;
        match solved {
            Ok(entries) => return Ok(entries),
            Err(Unsolved::Failed(why)) => return Err(Error::Invalid(format!("resolution: {why}"))),
            Err(Unsolved::Missing(ids)) => {
                for event in rooms.events_by_id(room, &ids).await? {
                    material.add_event(event.stored.nid.0, event.pdu);
                }
                for id in ids {
                    material.add_absent(id);
                }
            }
        }
    }
    Err(Error::Invalid(
        "resolution needs too many events".to_owned(),
    ))
}

async fn load(
    rooms: &Rooms,
    room: &Room,
    events: &[i64],
    material: &mut Material,
) -> Result<(), Error> {
    for chunk in events.chunks(LOAD_AT_ONCE) {
        for (event, pdu) in chunk.iter().zip(rooms.pdus(room, chunk).await?) {
            material.add_event(*event, pdu);
        }
    }
    Ok(())
}

impl Rooms {
    /// Does long work on a thread of its own, short work here.
    pub(super) async fn off_thread<T: Send + 'static>(
        &self,
        size: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if size < LARGE {
            return Ok(work());
        }
        let permit = self.0.workers.clone().acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work ends, also where nobody waits for it any more.
            let _permit = permit;
            work()
        });
        done.await
            .map_err(|error| Error::Invalid(format!("resolution: {error}")))
    }
}
