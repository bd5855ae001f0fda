//! Auth graphs in memory, one a room: loaded once, then only what is new.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::{
    rooms::{Error, Rooms, auth_graph::AuthGraph, resident::Room},
    storage,
};

/// Bytes of auth graphs in memory: a dozen rooms of the largest kind, or thousands of usual ones.
pub(in crate::rooms) const GRAPH_BYTES_MAX: u64 = 128 << 20;
/// Events of a room that are loaded in one go; the rest, if there is one, as it is needed.
const FIRST_MAX: i64 = 500_000;
/// Events asked for at once.
const ASK_MAX: usize = 10_000;
/// Generations loaded one by one before the rest is called broken: each is a query.
const GENERATIONS_MAX: usize = 10_000;

/// The auth graph of a room, shared by whoever resolves or serves it.
#[derive(Clone, Debug, Default)]
pub(in crate::rooms) struct Graph(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    graph: RwLock<AuthGraph>,
    /// One loads at a time.
    loading: tokio::sync::Mutex<()>,
}

impl Graph {
    /// The graph. Not to be held over an await.
    pub(in crate::rooms) fn read(&self) -> RwLockReadGuard<'_, AuthGraph> {
        self.0.graph.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of events.
    pub(in crate::rooms) fn len(&self) -> usize {
        self.read().len()
    }

    /// What it weighs in the cache.
    pub(in crate::rooms) fn weight(&self) -> u32 {
        u32::try_from(1_000 + self.read().bytes()).unwrap_or(u32::MAX)
    }

    fn insert(&self, rows: Vec<(i64, Vec<i64>)>) {
        let mut graph = self.0.graph.write().unwrap_or_else(PoisonError::into_inner);
        graph.insert(rows);
    }

    /// Those of some events that are not in it, and of auth events of fresh ones.
    fn lacking(&self, events: &[i64], fresh: &[(i64, Vec<i64>)]) -> Vec<i64> {
        let leaned_on = fresh.iter().flat_map(|(_, auth)| auth);
        let mut lacking = self.read().lacking(events.iter().chain(leaned_on).copied());
        lacking.retain(|event| !fresh.iter().any(|(fresh, _)| fresh == event));
        lacking
    }
}

impl Rooms {
    /// The auth graph of a room, with all of `events` and their chains in it. `fresh` are events
    /// that are not stored yet, with their auth events.
    pub(in crate::rooms) async fn auth_graph(
        &self,
        room: &Room,
        events: &[i64],
        fresh: &[(i64, Vec<i64>)],
    ) -> Result<Graph, Error> {
        let graph = self.0.graphs.get_with(room.nid, Graph::default);
        if graph.lacking(events, fresh).is_empty() {
            if !fresh.is_empty() {
                graph.insert(fresh.to_vec());
            }
            return Ok(graph);
        }
        let _loading = graph.0.loading.lock().await;
        if graph.len() == 0 {
            let mut conn = self.ctx().db.conn().await?;
            graph.insert(storage::events::auth_edges(&mut conn, room.nid, FIRST_MAX).await?);
        }
        let (rows, is_whole) = self.new_edges(room, &graph, events, fresh).await?;
        if !is_whole {
            // Something is not stored yet that will be. This graph must not be met again.
            let own = Graph::default();
            let all = graph.read().clone();
            *own.0.graph.write().unwrap_or_else(PoisonError::into_inner) = all;
            own.insert(rows);
            return Ok(own);
        }
        graph.insert(rows);
        // Weighed anew.
        self.0.graphs.insert(room.nid, graph.clone());
        Ok(graph.clone())
    }

    /// Edges that a graph lacks, generation by generation; and whether all were found.
    async fn new_edges(
        &self,
        room: &Room,
        graph: &Graph,
        events: &[i64],
        fresh: &[(i64, Vec<i64>)],
    ) -> Result<(Vec<(i64, Vec<i64>)>, bool), Error> {
        let mut rows = fresh.to_vec();
        let mut is_whole = true;
        let mut wanted = graph.lacking(events, fresh);
        let mut asked = std::collections::HashSet::new();
        for _ in 0..GENERATIONS_MAX {
            wanted.retain(|event| asked.insert(*event));
            if wanted.is_empty() {
                return Ok((rows, is_whole));
            }
            let mut next = Vec::new();
            let mut conn = self.ctx().db.conn().await?;
            for chunk in wanted.chunks(ASK_MAX) {
                let found = storage::events::auth_edges_of(&mut conn, room.nid, chunk).await?;
                is_whole &= found.len() == chunk.len();
                next.extend(found.iter().flat_map(|(_, auth)| auth.iter().copied()));
                rows.extend(found);
            }
            drop(conn);
            wanted = graph.read().lacking(next);
        }
        Err(Error::Invalid("auth chains are too long".to_owned()))
    }
}
