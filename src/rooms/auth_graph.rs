//! The auth graph of a room in memory: which event names which others as its authorization.
//!
//! Edges never change, so what is known stays true. Events get dense numbers in an order in which
//! every event comes after its auth events: a set of events is a row of bits, and all that is
//! reached from it is found in one pass from high numbers to low ones.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

/// Sets that one pass tells apart: the bits of a word.
const SETS_AT_ONCE: usize = 64;
/// Bytes that an event takes: number, index, and about four edges.
const EVENT_BYTES: usize = 56;

/// Edges of the auth graph of one room.
#[derive(Clone, Debug, Default)]
pub struct AuthGraph {
    /// Events by dense number.
    nids: Vec<i64>,
    /// Dense numbers by event.
    dense: HashMap<i64, u32, BuildHasherDefault<NidHasher>>,
    /// Where the edges of each event begin.
    starts: Vec<u32>,
    edges: Vec<u32>,
}

impl AuthGraph {
    /// Number of events.
    pub fn len(&self) -> usize {
        self.nids.len()
    }

    /// Whether it has no events.
    pub fn is_empty(&self) -> bool {
        self.nids.is_empty()
    }

    /// Bytes it takes, about.
    pub fn bytes(&self) -> usize {
        self.nids.len() * EVENT_BYTES
    }

    /// Whether an event is in it.
    pub fn contains(&self, event: i64) -> bool {
        self.dense.contains_key(&event)
    }

    /// Those of some events that are not in it.
    pub fn lacking(&self, events: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut lacking: Vec<i64> = events
            .into_iter()
            .filter(|event| !self.contains(*event))
            .collect();
        lacking.sort_unstable();
        lacking.dedup();
        lacking
    }

    /// Adds events with their auth events, in any order. Returns auth events that are neither in
    /// the graph nor among those added; they count as events without auth events.
    pub fn insert(&mut self, rows: impl IntoIterator<Item = (i64, Vec<i64>)>) -> Vec<i64> {
        let mut waiting: HashMap<i64, Vec<i64>> = rows
            .into_iter()
            .filter(|(event, _)| !self.contains(*event))
            .collect();
        let mut events: Vec<i64> = waiting.keys().copied().collect();
        events.sort_unstable();
        let mut unknown = Vec::new();
        for event in events {
            if let Some(auth) = waiting.remove(&event) {
                self.insert_below((event, auth), &mut waiting, &mut unknown);
            }
        }
        unknown
    }

    /// Adds one event, those it leans on first.
    fn insert_below(
        &mut self,
        top: (i64, Vec<i64>),
        waiting: &mut HashMap<i64, Vec<i64>>,
        unknown: &mut Vec<i64>,
    ) {
        let mut open = HashSet::from([top.0]);
        let mut stack = vec![(top.0, top.1, 0)];
        while let Some((event, auth, next)) = stack.last_mut() {
            if let Some(child) = auth.get(*next).copied() {
                *next += 1;
                // Where ids are made up (v1 and v2), events of a peer may lean on each other in a
                // ring; the edge that closes it is left out.
                if self.contains(child) || open.contains(&child) {
                    continue;
                }
                if let Some(below) = waiting.remove(&child) {
                    open.insert(child);
                    stack.push((child, below, 0));
                } else {
                    self.push(child, &[]);
                    unknown.push(child);
                }
            } else {
                let (event, auth) = (*event, std::mem::take(auth));
                self.push(event, &auth);
                open.remove(&event);
                stack.pop();
            }
        }
    }

    fn push(&mut self, event: i64, auth: &[i64]) {
        let number = small(self.nids.len());
        self.starts.push(small(self.edges.len()));
        let mut edges: Vec<u32> = auth
            .iter()
            .filter_map(|event| self.dense.get(event).copied())
            .collect();
        edges.sort_unstable();
        edges.dedup();
        self.edges.extend(edges);
        self.nids.push(event);
        self.dense.insert(event, number);
    }

    fn number(&self, event: i64) -> Option<usize> {
        self.dense.get(&event).map(|number| *number as usize)
    }

    fn below(&self, number: usize) -> impl Iterator<Item = usize> {
        let start = self.starts[number] as usize;
        let end = self
            .starts
            .get(number + 1)
            .map_or(self.edges.len(), |end| *end as usize);
        self.edges[start..end].iter().map(|edge| *edge as usize)
    }

    /// The auth events of an event.
    pub fn auth_of(&self, event: i64) -> impl Iterator<Item = i64> {
        self.number(event)
            .into_iter()
            .flat_map(|number| self.below(number))
            .map(|number| self.nids[number])
    }

    /// The auth chains of some events: an event itself is in it only where another leads there.
    pub fn chain(&self, events: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut reached = Bits::new(self.len());
        for number in events.into_iter().filter_map(|event| self.number(event)) {
            for auth in self.below(number) {
                reached.insert(auth);
            }
        }
        self.close(&mut reached, 0);
        self.events(&reached)
    }

    /// Adds to a set all that is reached from it, down to a number.
    fn close(&self, reached: &mut Bits, lowest: usize) {
        for word in (lowest / 64..reached.0.len()).rev() {
            // What an event adds has a lower number, so one way through each word is enough.
            let mut ahead = u64::MAX;
            loop {
                let bits = reached.0[word] & ahead;
                if bits == 0 {
                    break;
                }
                let bit = bits.ilog2();
                ahead = (1 << bit) - 1;
                for auth in self.below(word * 64 + bit as usize) {
                    reached.insert(auth);
                }
            }
        }
    }

    /// Events that are in the auth chains of some, but not of all, of several sets of events, and
    /// not in the chains of `shared` events, which all sets have.
    pub fn difference(&self, sets: &[Vec<i64>], shared: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut some = Bits::new(self.len());
        let mut all: Option<Bits> = None;
        for sets in sets.chunks(SETS_AT_ONCE) {
            let (reached, by_all) = self.told_apart(sets);
            some.unite(&reached);
            match &mut all {
                Some(all) => all.intersect(&by_all),
                None => all = Some(by_all),
            }
        }
        if let Some(all) = all {
            some.subtract(&all);
        }
        let Some(lowest) = some.iter().next() else {
            return Vec::new();
        };
        let mut common = Bits::new(self.len());
        for number in shared.into_iter().filter_map(|event| self.number(event)) {
            if number > lowest {
                for auth in self.below(number) {
                    common.insert(auth);
                }
            }
        }
        self.close(&mut common, lowest);
        some.subtract(&common);
        self.events(&some)
    }

    /// What the chains of up to [`SETS_AT_ONCE`] sets reach, and what all of them reach.
    fn told_apart(&self, sets: &[Vec<i64>]) -> (Bits, Bits) {
        let every = u64::MAX >> (SETS_AT_ONCE - sets.len());
        let mut by = vec![0_u64; self.len()];
        let mut reached = Bits::new(self.len());
        let mut by_all = Bits::new(self.len());
        for (place, set) in sets.iter().enumerate() {
            for number in set.iter().filter_map(|event| self.number(*event)) {
                for auth in self.below(number) {
                    by[auth] |= 1 << place;
                    reached.insert(auth);
                }
            }
        }
        for word in (0..reached.0.len()).rev() {
            let mut ahead = u64::MAX;
            loop {
                let bits = reached.0[word] & ahead;
                if bits == 0 {
                    break;
                }
                let bit = bits.ilog2();
                ahead = (1 << bit) - 1;
                let number = word * 64 + bit as usize;
                let from = by[number];
                if from == every {
                    by_all.insert(number);
                }
                for auth in self.below(number) {
                    by[auth] |= from;
                    reached.insert(auth);
                }
            }
        }
        (reached, by_all)
    }

    /// Events on a path of auth events from one of some events to another of them, with those.
    pub fn between(&self, ends: &[i64]) -> Vec<i64> {
        let mut on_path = Bits::new(self.len());
        for number in ends.iter().filter_map(|event| self.number(*event)) {
            on_path.insert(number);
        }
        let Some(lowest) = on_path.iter().next() else {
            return Vec::new();
        };
        let mut below = on_path.clone();
        self.close(&mut below, lowest);
        for number in below.iter().skip_while(|number| *number < lowest) {
            if self.below(number).any(|auth| on_path.contains(auth)) {
                on_path.insert(number);
            }
        }
        self.events(&on_path)
    }

    /// Events, and what is reached from them in so many steps; no more than `events_max`.
    pub fn generations(&self, events: &[i64], steps: usize, events_max: usize) -> Vec<i64> {
        let mut seen: HashSet<usize> = HashSet::new();
        let mut edge: Vec<usize> = events.iter().filter_map(|e| self.number(*e)).collect();
        seen.extend(&edge);
        for _ in 0..steps {
            let mut next = Vec::new();
            for auth in edge.iter().flat_map(|number| self.below(*number)) {
                if seen.len() < events_max && seen.insert(auth) {
                    next.push(auth);
                }
            }
            edge = next;
        }
        seen.into_iter().map(|number| self.nids[number]).collect()
    }

    fn events(&self, set: &Bits) -> Vec<i64> {
        set.iter().map(|number| self.nids[number]).collect()
    }
}

/// A set of dense numbers.
#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn contains(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    fn unite(&mut self, other: &Self) {
        for (word, with) in self.0.iter_mut().zip(&other.0) {
            *word |= with;
        }
    }

    fn intersect(&mut self, other: &Self) {
        for (word, with) in self.0.iter_mut().zip(&other.0) {
            *word &= with;
        }
    }

    fn subtract(&mut self, other: &Self) {
        for (word, with) in self.0.iter_mut().zip(&other.0) {
            *word &= !with;
        }
    }

    /// From low to high.
    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let bit = word.trailing_zeros() as usize;
                word &= word - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

fn small(number: usize) -> u32 {
    // Far above what is ever loaded of a room.
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Spreads event numbers, which we gave out ourselves and nobody can choose.
#[derive(Clone, Debug, Default)]
struct NidHasher(u64);

impl Hasher for NidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::AuthGraph;

    type Rows = Vec<(i64, Vec<i64>)>;

    fn sorted(events: Vec<i64>) -> Vec<i64> {
        let set: BTreeSet<i64> = events.into_iter().collect();
        set.into_iter().collect()
    }

    fn graph() -> AuthGraph {
        // 1 <- 2 <- 3 <- 4, 2 <- 5; given in an order that does not fit.
        let mut graph = AuthGraph::default();
        let unknown = graph.insert([(4, vec![3]), (5, vec![2]), (1, vec![])]);
        assert_eq!(unknown, [3, 2]);
        let mut graph = AuthGraph::default();
        let rows = [
            (4, vec![3]),
            (5, vec![2]),
            (1, vec![]),
            (3, vec![2]),
            (2, vec![1]),
        ];
        assert!(graph.insert(rows).is_empty());
        graph
    }

    #[test]
    fn a_chain_leaves_out_its_seeds_unless_another_leads_there() {
        assert_eq!(sorted(graph().chain([4])), [1, 2, 3]);
        assert_eq!(sorted(graph().chain([4, 3])), [1, 2, 3]);
    }

    #[test]
    fn the_subgraph_is_what_lies_between() {
        assert_eq!(sorted(graph().between(&[4, 2])), [2, 3, 4]);
        assert_eq!(sorted(graph().between(&[3, 5])), [3, 5]);
    }

    #[test]
    fn a_ring_is_cut() {
        let mut graph = AuthGraph::default();
        graph.insert([(1, vec![2]), (2, vec![3]), (3, vec![1, 3])]);
        assert_eq!(graph.len(), 3);
        assert_eq!(sorted(graph.chain([1])), [2, 3]);
    }

    /// A graph in which event `i` leans on some before it; numbers are shuffled by a factor.
    fn rows() -> impl Strategy<Value = Rows> {
        let back = prop::collection::vec(prop::collection::vec(0..200_usize, 0..4), 1..200);
        back.prop_map(|back| {
            let nid = |at: usize| i64::try_from(at * 7919 % 10_007).unwrap();
            let row = |(at, auth): (usize, Vec<usize>)| {
                let auth = auth
                    .into_iter()
                    .filter(|_| at > 0)
                    .map(|a| nid(a % at.max(1)));
                (nid(at), auth.collect())
            };
            back.into_iter().enumerate().map(row).collect()
        })
    }

    fn plain_chain(edges: &HashMap<i64, Vec<i64>>, event: i64) -> BTreeSet<i64> {
        let mut seen = BTreeSet::new();
        let mut queue = edges[&event].clone();
        while let Some(next) = queue.pop() {
            if seen.insert(next) {
                queue.extend(&edges[&next]);
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn bits_find_what_sets_find(
            rows in rows(),
            picks in prop::collection::vec(prop::collection::vec(0..200_usize, 1..4), 1..90),
            shared in prop::collection::vec(0..200_usize, 0..4),
            split in 0..200_usize,
        ) {
            let edges: HashMap<i64, Vec<i64>> = rows.iter().cloned().collect();
            let pick = |at: &usize| rows[at % rows.len()].0;
            let sets: Vec<Vec<i64>> = picks.iter().map(|set| set.iter().map(pick).collect()).collect();
            let shared: Vec<i64> = shared.iter().map(pick).collect();
            // Grown in two steps, as a room grows.
            let mut graph = AuthGraph::default();
            graph.insert(rows.iter().take(split).cloned());
            graph.insert(rows.iter().rev().cloned());

            let chain_of = |set: &Vec<i64>| -> BTreeSet<i64> {
                set.iter().chain(&shared).flat_map(|event| plain_chain(&edges, *event)).collect()
            };
            let chains: Vec<BTreeSet<i64>> = sets.iter().map(chain_of).collect();
            let some: BTreeSet<i64> = chains.iter().flatten().copied().collect();
            let expected: Vec<i64> =
                some.into_iter().filter(|e| !chains.iter().all(|chain| chain.contains(e))).collect();
            prop_assert_eq!(sorted(graph.difference(&sets, shared.iter().copied())), expected);

            let ends: Vec<i64> = sets.iter().flatten().copied().collect();
            let expected: Vec<i64> = rows
                .iter()
                .map(|(event, _)| *event)
                .filter(|event| {
                    let under = ends.iter().any(|end| end == event || plain_chain(&edges, *end).contains(event));
                    let over = ends.contains(event)
                        || plain_chain(&edges, *event).iter().any(|below| ends.contains(below));
                    under && over
                })
                .collect();
            prop_assert_eq!(sorted(graph.between(&ends)), sorted(expected));
        }
    }
}
