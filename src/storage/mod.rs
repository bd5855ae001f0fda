//! All SQL. One file a table family, free functions on a connection.

pub mod account_data;
pub mod aliases;
pub mod append;
pub mod appservices;
pub mod browser_sessions;
pub mod codec;
pub mod dehydrated;
pub mod delayed_events;
pub mod destinations;
pub mod device_keys;
pub mod device_lists;
pub mod devices;
pub mod event_times;
pub mod events;
pub mod guests;
pub mod holes;
pub mod ids;
pub mod inbox;
pub mod keeping;
pub mod key_backup;
pub mod locks;
mod log;
pub mod login_tokens;
pub mod mail_rooms;
pub mod media;
pub mod media_refs;
pub mod media_use;
pub mod memberships;
pub mod moderation;
pub mod names;
pub mod news;
pub mod notifications;
pub mod numbers;
pub mod oauth;
pub mod openid_tokens;
pub mod outbox;
pub mod partial;
pub mod pending_accounts;
pub mod presence;
pub mod previews;
pub mod profile_changes;
pub mod purges;
pub mod push_queue;
pub mod push_rules;
pub mod pushers;
pub mod quarantine;
pub mod receipts;
pub mod recent;
pub mod redact_todo;
pub mod registration_tokens;
pub mod relation_todo;
pub mod relations;
pub mod rendezvous;
pub mod room_blocks;
pub mod room_deletions;
pub mod room_list;
pub mod rooms;
pub mod search;
pub mod server_keys;
pub mod server_rules;
pub mod shares;
pub mod sliding;
pub mod spaces;
pub mod sso;
pub mod state;
pub mod sticky;
pub mod stream;
pub mod sync;
pub mod terms;
pub mod thread_subscriptions;
pub mod threepids;
pub mod to_device;
pub mod tokens;
pub mod tx;
pub mod unread;
pub mod unredacted;
pub mod user_directory;
pub mod user_list;
pub mod users;
pub mod validations;
pub mod validity;

use std::{sync::Arc, time::Duration};

use sqlx::{
    PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use self::{
    ids::Ids,
    log::{LogEntry, LogKind, LogRow},
    numbers::{EventNid, RoomNid, SKeyNid, ServerNid, TypeNid, UserNid},
    recent::{Recent, Topic},
    stream::{Pos, StreamClock},
    tx::Tx,
};

/// Connections for everything but the room writers. Small: PostgreSQL works best with few.
const READERS_MAX: u32 = 16;
/// Connections for what is planned anew each time, which few ask for.
const PLANNING_MAX: u32 = 8;
/// How long such a connection is kept that nobody uses.
const PLANNING_IDLE: Duration = Duration::from_mins(5);

/// How long a request waits for a free connection before it fails with 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// Why a storage function failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL or the connection to it.
    #[error("database: {0}")]
    Sqlx(#[from] sqlx::Error),
    /// A migration did not apply.
    #[error("migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row that our own code cannot have written.
    #[error("inconsistent row in {table}: {what}")]
    Inconsistent {
        /// Table.
        table: &'static str,
        /// Column, key and value.
        what: String,
    },
}

impl Error {
    /// Whether this is the violation of the unique constraint of that name.
    pub fn violates(&self, constraint: &str) -> bool {
        match self {
            Self::Sqlx(sqlx::Error::Database(error)) => error.constraint() == Some(constraint),
            Self::Sqlx(_) | Self::Migrate(_) | Self::Inconsistent { .. } => false,
        }
    }
}

/// The database: connections, positions, interned ids. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
    planning: PgPool,
    options: Arc<PgConnectOptions>,
    /// Positions of what is committed.
    pub stream: StreamClock,
    /// Interned ids.
    pub ids: Ids,
}

impl Db {
    /// Connects, checks the epoch of the positions and starts to follow the log.
    ///
    /// Does not migrate: see [`migrate`].
    pub async fn connect(options: PgConnectOptions) -> Result<Self, Error> {
        // JIT would compile for milliseconds what runs for microseconds; the time-outs bound how long a
        // position can be drawn and not committed (docs/adr/0004).
        let options = options.application_name("amtsbote").options([
            ("jit", "off"),
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "10s"),
            // When the machine at our end is gone, its locks are free after half a minute.
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ]);
        // To plan one of the large statements of a sync takes longer than to run it, and PostgreSQL does so
        // each time where it thinks that knowing the values pays off. It does not where rows are found by
        // key; for what is left see [`Db::planning`].
        let kept = options.clone();
        let kept = kept.options([("plan_cache_mode", "force_generic_plan")]);
        let pools = PgPoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false);
        let pool = pools
            .clone()
            .max_connections(READERS_MAX)
            .min_connections(1)
            .connect_with(kept)
            .await?;
        let planning = pools
            .max_connections(PLANNING_MAX)
            .idle_timeout(PLANNING_IDLE)
            .connect_lazy_with(options.clone());
        let stream = StreamClock::start(pool.clone()).await?;
        let ids = Ids::new(pool.clone());
        Ok(Self {
            pool,
            planning,
            options: Arc::new(options),
            stream,
            ids,
        })
    }

    /// A connection for single statements, each its own transaction.
    pub async fn conn(&self) -> Result<PoolConnection<Postgres>, Error> {
        Ok(self.pool.acquire().await?)
    }

    /// A connection on which a statement may be planned for the values that it is asked with: for
    /// searches, lists of operators and what writes thousands of rows, whose best plan depends on
    /// them.
    pub async fn planning(&self) -> Result<PoolConnection<Postgres>, Error> {
        Ok(self.planning.acquire().await?)
    }

    /// A transaction. Keep it short, and call nobody over the network inside.
    pub async fn begin(&self) -> Result<Tx, Error> {
        Tx::begin(&self.pool, self.stream.clone()).await
    }

    /// A connection of its own, outside the pool, for a writer that must never be cancelled.
    pub async fn dedicated(&self) -> Result<PgConnection, Error> {
        use sqlx::ConnectOptions;
        Ok(self.options.connect().await?)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query_scalar!(r#"SELECT 1 AS "one!""#)
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Closes every connection once it is free.
    pub async fn close(&self) {
        self.stream.stop();
        self.pool.close().await;
        self.planning.close().await;
    }
}

/// Applies all migrations that are missing.
pub async fn migrate(options: PgConnectOptions) -> Result<(), Error> {
    use sqlx::ConnectOptions;
    let mut conn = options.connect().await?;
    MIGRATOR.run(&mut conn).await?;
    Ok(())
}

/// Makes a database on a server where it is not there yet.
pub async fn create_database(options: &PgConnectOptions, name: &str) -> Result<(), Error> {
    use sqlx::{ConnectOptions, Connection};
    let mut conn = options.connect().await?;
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1) AS "exists!""#,
        name
    );
    if !exists.fetch_one(&mut conn).await? {
        // dynamic: a statement that makes a database takes no parameters; the name is ours.
        let create = format!("CREATE DATABASE \"{name}\"");
        sqlx::query(sqlx::AssertSqlSafe(create))
            .execute(&mut conn)
            .await?;
    }
    conn.close().await?;
    Ok(())
}
