//! Transactions that announce the positions they drew.

use std::ops::{Deref, DerefMut};

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::{
    Error,
    log::{LogEntry, LogRow},
    stream::{Pos, StreamClock},
};

/// A transaction. Dropped without [`Tx::commit`], it is rolled back.
///
/// [`Tx::log`] must come last: a position that is drawn and not committed holds up every sync
/// behind it (docs/adr/0004).
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Postgres>,
    stream: StreamClock,
    logged: Vec<LogRow>,
}

impl Tx {
    pub(super) async fn begin(pool: &PgPool, stream: StreamClock) -> Result<Self, Error> {
        Ok(Self {
            inner: pool.begin().await?,
            stream,
            logged: Vec::new(),
        })
    }

    /// Draws a position and writes the log row that tells syncs and peers what changed.
    pub async fn log(&mut self, entry: LogEntry) -> Result<Pos, Error> {
        let mut positions = self.log_all(&[entry]).await?;
        Ok(positions.pop().unwrap_or_default())
    }

    /// Draws a position for each entry, in order.
    pub async fn log_all(&mut self, entries: &[LogEntry]) -> Result<Vec<Pos>, Error> {
        let positions = super::stream::append(&mut self.inner, entries).await?;
        let rows = positions
            .iter()
            .zip(entries)
            .map(|(pos, entry)| entry.at(*pos));
        self.logged.extend(rows);
        Ok(positions)
    }

    /// Commits; then wakes whoever waits for what was logged.
    pub async fn commit(self) -> Result<(), Error> {
        self.inner.commit().await?;
        self.stream.announce(self.logged);
        Ok(())
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}
