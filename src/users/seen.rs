//! When, from where and with what a device was last used: gathered in memory, written now and then for many
//! devices at once.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;

use super::{Error, tokens::Session};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, devices::Seen as Row},
};

/// How often what was gathered is written.
pub const EVERY: Duration = Duration::from_secs(5);
/// How long a device is not noted again.
const AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Devices that are remembered not to be noted again, and that wait to be written.
const DEVICES_MAX: u64 = 100_000;
/// Bytes of a user agent that are kept.
const AGENT_BYTES_MAX: usize = 200;

/// One for each node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Seen {
    recent: Cache<(UserNid, i32), ()>,
    waiting: Arc<Mutex<HashMap<(UserNid, i32), Row>>>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            recent: Cache::builder()
                .max_capacity(DEVICES_MAX)
                .time_to_live(AGAIN_AFTER)
                .build(),
            waiting: Arc::default(),
        }
    }
}

impl Seen {
    /// Notes a request of a device. What an application service does for its users says nothing
    /// of them.
    pub fn note(&self, session: &Session, address: Option<IpAddr>, agent: Option<&str>) {
        let device = (session.user_nid, session.device_no);
        if session.appservice.is_some() || self.recent.contains_key(&device) {
            return;
        }
        self.recent.insert(device, ());
        let row = Row {
            user: session.user_nid,
            device_no: session.device_no,
            ts: now_ms(),
            ip: address.map(|address| address.to_canonical().to_string()),
            agent: agent.map(|agent| shortened(agent).to_owned()),
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if (waiting.len() as u64) < DEVICES_MAX {
            waiting.insert(device, row);
        }
    }

    /// Writes what was gathered.
    pub async fn write(&self, ctx: &Context) -> Result<(), Error> {
        let taken = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        if taken.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row> = taken.into_values().collect();
        let mut conn = ctx.db.conn().await?;
        storage::devices::update_seen(&mut conn, &rows).await?;
        Ok(())
    }
}

fn shortened(agent: &str) -> &str {
    &agent[..agent.floor_char_boundary(AGENT_BYTES_MAX)]
}
