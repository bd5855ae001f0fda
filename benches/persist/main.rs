//! What it takes to put events on disk: `append_events` with batches of several shapes.
//!
//! Needs a PostgreSQL, whose address is in `AMTSBOTE_BENCH_DATABASE_URL`; makes a database of its
//! own there, `amtsbote_bench`, and leaves it. A batch is one commit, flushed to disk.

use std::{cell::RefCell, str::FromStr};

use amtsbote::{
    clock::now_ms,
    event::version::RoomVersion,
    storage::{
        self, Db,
        append::{Batch, EventRow, RoomRow, append, flag},
    },
};
use divan::{Bencher, counter::ItemsCount};
use ruma::{RoomId, RoomVersionId, user_id};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::runtime::Runtime;
use uuid::Uuid;

const URL: &str = "AMTSBOTE_BENCH_DATABASE_URL";
/// (rooms, events in each) of a batch.
const SHAPES: [(i64, i64); 6] = [(1, 1), (1, 16), (1, 50), (16, 1), (128, 1), (10, 50)];
/// Bytes of an event as it is stored: a short encrypted message.
const BODY: usize = 900;

fn main() {
    if std::env::var_os(URL).is_none() {
        println!("{URL} is not set: no PostgreSQL to write to, nothing measured");
        return;
    }
    divan::main();
}

/// A database with rooms that have heads.
struct Scene {
    runtime: Runtime,
    conn: RefCell<PgConnection>,
    sender: i64,
    kind: i32,
    /// (room, its revision).
    rooms: RefCell<Vec<(i64, i64)>>,
}

impl Scene {
    fn new(rooms: i64) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (conn, sender, kind, rooms) = runtime.block_on(prepare(rooms));
        Self {
            runtime,
            conn: RefCell::new(conn),
            sender,
            kind,
            rooms: RefCell::new(rooms),
        }
    }

    /// The next events of every room.
    fn batch(&self, events: i64) -> Batch {
        let mut batch = Batch::default();
        for (room, rev) in self.rooms.borrow_mut().iter_mut() {
            let seq = |of: i64| of * events + 1;
            batch.rooms.push(RoomRow {
                room: *room,
                rev: *rev,
                new_rev: *rev + 1,
                seq: seq(*rev + 1) + events - 1,
                depth: seq(*rev + 1),
                snap: 1,
                extrem: Vec::new(),
                ts: now_ms(),
            });
            *rev += 1;
            let first = seq(*rev);
            batch
                .events
                .extend((first..first + events).map(|seq| self.event(*room, seq)));
        }
        batch
    }

    fn event(&self, room: i64, seq: i64) -> EventRow {
        EventRow {
            nid: room * 1_000_000_000 + seq,
            room,
            seq: Some(seq),
            depth: seq,
            ts: now_ms(),
            sender: self.sender,
            user: self.sender,
            skey: None,
            snap: Some(1),
            key: Uuid::from_u128(rand::random()),
            tail: Uuid::from_u128(rand::random()),
            kind: self.kind,
            flags: flag::LOCAL,
            relation: None,
            media: Vec::new(),
            prev: vec![0; 12],
            auth: Vec::new(),
            body: vec![b'x'; BODY],
            known: false,
            out: Some(0),
        }
    }

    fn write(&self, batch: &Batch) {
        let mut conn = self.conn.borrow_mut();
        let outcome = self.runtime.block_on(append(&mut conn, batch, now_ms()));
        let outcome = outcome.expect("a batch is written");
        assert_eq!(outcome.written.len(), batch.events.len());
    }
}

/// Makes the database and the rooms in it: (connection, sender, event type, rooms without heads).
async fn prepare(count: i64) -> (PgConnection, i64, i32, Vec<(i64, i64)>) {
    let url = std::env::var(URL).expect("main has looked");
    let options = PgConnectOptions::from_str(&url).expect("the address of a PostgreSQL");
    storage::create_database(&options, "amtsbote_bench")
        .await
        .expect("a database of our own");
    let options = options.database("amtsbote_bench");
    storage::migrate(options.clone()).await.expect("tables");
    let db = Db::connect(options).await.expect("a connection");
    let sender = db.ids.user(user_id!("@a:bench.example")).await;
    let kind = db.ids.event_type("m.room.encrypted").await;
    let mut conn = db.dedicated().await.expect("a connection");
    let version = RoomVersion::of(&RoomVersionId::V11).expect("a version that we know");
    let mut rooms = Vec::new();
    for _ in 0..count {
        let id = format!("!{:x}:bench.example", rand::random::<u128>());
        let id = RoomId::parse(&id).expect("a room id");
        let nid = storage::rooms::intern(&mut conn, &id, &version.id, now_ms()).await;
        rooms.push((nid.expect("a room").0, -1));
    }
    (
        conn,
        sender.expect("a sender").0,
        kind.expect("a type").0,
        rooms,
    )
}

/// A batch of new messages: (rooms, events in each).
#[divan::bench(args = SHAPES, max_time = 4)]
fn persist(bencher: Bencher<'_, '_>, (rooms, events): (i64, i64)) {
    let scene = Scene::new(rooms);
    let count = usize::try_from(rooms * events).unwrap_or(0);
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| scene.batch(events))
        .bench_local_values(|batch| scene.write(&batch));
}
