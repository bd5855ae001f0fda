//! Interned ids: small integers for long Matrix identifiers.
//!
//! Rows are immutable, so the caches need no invalidation. Interning uses connections of its own
//! and commits at once: an id that was seen is never forgotten, whatever happens to the
//! transaction that needed it. Intern before you begin a transaction, never inside.

mod skeys;

use std::collections::HashMap;

use moka::sync::Cache;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use sqlx::PgPool;

use super::{Error, RoomNid, SKeyNid, ServerNid, TypeNid, UserNid};

/// Cached pairs of each kind.
const CACHED_MAX: u64 = 500_000;

/// The interning tables, cached. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ids {
    pool: PgPool,
    users: Cache<OwnedUserId, UserNid>,
    user_names: Cache<UserNid, OwnedUserId>,
    servers: Cache<OwnedServerName, ServerNid>,
    server_names: Cache<ServerNid, OwnedServerName>,
    rooms: Cache<OwnedRoomId, RoomNid>,
    room_names: Cache<RoomNid, OwnedRoomId>,
    types: Cache<String, TypeNid>,
    type_names: Cache<TypeNid, String>,
    skeys: Cache<(TypeNid, String), SKeyNid>,
    skey_pairs: Cache<SKeyNid, (String, String)>,
}

/// `m.room.member`, whose number the schema fixes.
pub const TYPE_MEMBER: TypeNid = TypeNid(1);
const MEMBER: &str = "m.room.member";
/// State events of which a room has one, which are looked for in any room.
const SINGLE: [&str; 14] = [
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.create",
    "m.room.encryption",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.name",
    "m.room.policy",
    "m.room.power_levels",
    "m.room.retention",
    "m.room.server_acl",
    "m.room.tombstone",
    "m.room.topic",
];

impl Ids {
    pub(super) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            users: Cache::new(CACHED_MAX),
            user_names: Cache::new(CACHED_MAX),
            servers: Cache::new(CACHED_MAX),
            server_names: Cache::new(CACHED_MAX),
            rooms: Cache::new(CACHED_MAX),
            room_names: Cache::new(CACHED_MAX),
            types: Cache::new(CACHED_MAX),
            type_names: Cache::new(CACHED_MAX),
            skeys: Cache::new(CACHED_MAX),
            skey_pairs: Cache::new(CACHED_MAX),
        }
    }

    /// The number of a user, given one when it is new.
    pub async fn user(&self, id: &UserId) -> Result<UserNid, Error> {
        if let Some(nid) = self.users.get(id) {
            return Ok(nid);
        }
        Ok(self.users_of(&[id]).await?[0])
    }

    /// The numbers of many users, in the order asked; one query for those not cached.
    pub async fn users_of(&self, ids: &[&UserId]) -> Result<Vec<UserNid>, Error> {
        let missing: Vec<&UserId> = ids
            .iter()
            .copied()
            .filter(|id| !self.users.contains_key(*id))
            .collect();
        if !missing.is_empty() {
            let servers = self.servers_of(&missing).await?;
            self.intern_users(&missing, &servers).await?;
        }
        ids.iter()
            .map(|id| self.users.get(*id).ok_or_else(|| lost("mx_user", id)))
            .collect()
    }

    /// Servers of users, in the same order.
    async fn servers_of(&self, users: &[&UserId]) -> Result<Vec<ServerNid>, Error> {
        let known = users.iter().map(|id| self.servers.get(id.server_name()));
        if let Some(known) = known.collect() {
            return Ok(known);
        }
        let names = users.iter().map(|id| id.server_name().as_str().to_owned());
        self.intern_servers(&names.collect::<Vec<_>>()).await
    }

    async fn intern_users(&self, ids: &[&UserId], servers: &[ServerNid]) -> Result<(), Error> {
        let mxids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let servers: Vec<i32> = servers.iter().map(|nid| nid.0).collect();
        sqlx::query!(
            "INSERT INTO mx_user (server_nid, mxid)
             SELECT DISTINCT ON (mxid) server_nid, mxid
             FROM unnest($1::int[], $2::text[]) AS w (server_nid, mxid)
             WHERE NOT EXISTS (SELECT 1 FROM mx_user u WHERE u.mxid = w.mxid)
             ON CONFLICT DO NOTHING",
            &servers,
            &mxids
        )
        .execute(&self.pool)
        .await?;
        self.read_users(&mxids).await?;
        Ok(())
    }

    fn keep_user(&self, nid: UserNid, mxid: &str) -> Result<OwnedUserId, Error> {
        let id = UserId::parse(mxid).map_err(|_| lost("mx_user", mxid))?;
        self.users.insert(id.clone(), nid);
        self.user_names.insert(nid, id.clone());
        Ok(id)
    }

    /// The number of a user, if we have ever heard of it.
    pub async fn find_user(&self, id: &UserId) -> Result<Option<UserNid>, Error> {
        if let Some(nid) = self.users.get(id) {
            return Ok(Some(nid));
        }
        Ok(self.find_users([id]).await?.remove(id))
    }

    /// The numbers of those of many users whom we have ever heard of; one query for those not cached.
    pub async fn find_users(
        &self,
        ids: impl IntoIterator<Item = &UserId>,
    ) -> Result<HashMap<OwnedUserId, UserNid>, Error> {
        let (mut found, mut missing) = (HashMap::new(), Vec::new());
        for id in ids {
            match self.users.get(id) {
                Some(nid) => drop(found.insert(id.to_owned(), nid)),
                None => missing.push(id.as_str().to_owned()),
            }
        }
        if !missing.is_empty() {
            for (nid, id) in self.read_users(&missing).await? {
                found.insert(id, nid);
            }
        }
        Ok(found)
    }

    /// Reads users by id, and keeps them.
    async fn read_users(&self, ids: &[String]) -> Result<Vec<(UserNid, OwnedUserId)>, Error> {
        let sql = sqlx::query!(
            "SELECT user_nid, mxid FROM mx_user WHERE mxid = ANY($1)",
            ids
        );
        let rows = sql.fetch_all(&self.pool).await?.into_iter();
        rows.map(|row| {
            let nid = UserNid(row.user_nid);
            Ok((nid, self.keep_user(nid, &row.mxid)?))
        })
        .collect()
    }

    /// The id of a user number.
    pub async fn user_id(&self, nid: UserNid) -> Result<OwnedUserId, Error> {
        Ok(self.user_ids_of(&[nid]).await?.swap_remove(0))
    }

    /// The ids of many user numbers, in the order asked.
    pub async fn user_ids_of(&self, nids: &[UserNid]) -> Result<Vec<OwnedUserId>, Error> {
        let missing: Vec<i64> = nids
            .iter()
            .filter(|nid| !self.user_names.contains_key(*nid))
            .map(|nid| nid.0)
            .collect();
        let mut fresh = HashMap::new();
        if !missing.is_empty() {
            let rows = sqlx::query!(
                "SELECT user_nid, mxid FROM mx_user WHERE user_nid = ANY($1)",
                &missing
            )
            .fetch_all(&self.pool)
            .await?;
            for row in rows {
                let nid = UserNid(row.user_nid);
                fresh.insert(nid, self.keep_user(nid, &row.mxid)?);
            }
        }
        nids.iter()
            .map(|nid| {
                fresh
                    .get(nid)
                    .cloned()
                    .or_else(|| self.user_names.get(nid))
                    .ok_or_else(|| lost("mx_user", nid.0))
            })
            .collect()
    }

    /// The number of a server, given one when it is new.
    pub async fn server(&self, name: &ServerName) -> Result<ServerNid, Error> {
        if let Some(nid) = self.servers.get(name) {
            return Ok(nid);
        }
        Ok(self.intern_servers(&[name.as_str().to_owned()]).await?[0])
    }

    async fn intern_servers(&self, names: &[String]) -> Result<Vec<ServerNid>, Error> {
        sqlx::query!(
            "INSERT INTO server (name)
             SELECT DISTINCT name
             FROM unnest($1::text[]) AS w (name)
             WHERE NOT EXISTS (SELECT 1 FROM server s WHERE s.name = w.name)
             ON CONFLICT DO NOTHING",
            names
        )
        .execute(&self.pool)
        .await?;
        let rows = sqlx::query!(
            "SELECT server_nid, name FROM server WHERE name = ANY($1)",
            names
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found = HashMap::new();
        for row in rows {
            let nid = ServerNid(row.server_nid);
            self.keep_server(nid, &row.name)?;
            found.insert(row.name, nid);
        }
        names
            .iter()
            .map(|name| found.get(name).copied().ok_or_else(|| lost("server", name)))
            .collect()
    }

    fn keep_server(&self, nid: ServerNid, name: &str) -> Result<OwnedServerName, Error> {
        let id = ServerName::parse(name).map_err(|_| lost("server", name))?;
        self.servers.insert(id.clone(), nid);
        self.server_names.insert(nid, id.clone());
        Ok(id)
    }

    /// The name of a server number.
    pub async fn server_name(&self, nid: ServerNid) -> Result<OwnedServerName, Error> {
        if let Some(name) = self.server_names.get(&nid) {
            return Ok(name);
        }
        let name = sqlx::query_scalar!("SELECT name FROM server WHERE server_nid = $1", nid.0)
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| lost("server", nid.0))?;
        self.keep_server(nid, &name)
    }

    /// The number of a room that we hold or know of, or `None`. Rooms are numbered by
    /// [`super::rooms::intern`].
    pub async fn find_room(&self, id: &RoomId) -> Result<Option<RoomNid>, Error> {
        if let Some(nid) = self.rooms.get(id) {
            return Ok(Some(nid));
        }
        let nid = sqlx::query_scalar!("SELECT room_nid FROM room WHERE room_id = $1", id.as_str())
            .fetch_optional(&self.pool)
            .await?
            .map(RoomNid);
        if let Some(nid) = nid {
            self.rooms.insert(id.to_owned(), nid);
            self.room_names.insert(nid, id.to_owned());
        }
        Ok(nid)
    }

    /// The id of a room number.
    pub async fn room_id(&self, nid: RoomNid) -> Result<OwnedRoomId, Error> {
        Ok(self.room_ids_of(&[nid]).await?.swap_remove(0))
    }

    /// The ids of many room numbers, in the order asked.
    pub async fn room_ids_of(&self, nids: &[RoomNid]) -> Result<Vec<OwnedRoomId>, Error> {
        let missing: Vec<i64> = nids
            .iter()
            .filter(|nid| !self.room_names.contains_key(*nid))
            .map(|nid| nid.0)
            .collect();
        let mut fresh = HashMap::new();
        if !missing.is_empty() {
            let rows = sqlx::query!(
                "SELECT room_nid, room_id FROM room WHERE room_nid = ANY($1)",
                &missing
            )
            .fetch_all(&self.pool)
            .await?;
            for row in rows {
                let id = RoomId::parse(&row.room_id).map_err(|_| lost("room", &row.room_id))?;
                self.rooms.insert(id.clone(), RoomNid(row.room_nid));
                self.room_names.insert(RoomNid(row.room_nid), id.clone());
                fresh.insert(RoomNid(row.room_nid), id);
            }
        }
        nids.iter()
            .map(|nid| {
                fresh
                    .get(nid)
                    .cloned()
                    .or_else(|| self.room_names.get(nid))
                    .ok_or_else(|| lost("room", nid.0))
            })
            .collect()
    }

    /// The number of an event type, given one when it is new.
    pub async fn event_type(&self, name: &str) -> Result<TypeNid, Error> {
        if let Some(nid) = self.types.get(name) {
            return Ok(nid);
        }
        let nid = sqlx::query_scalar!(
            r#"WITH fresh AS (
                 INSERT INTO ev_type (name)
                 SELECT $1
                 WHERE NOT EXISTS (SELECT 1 FROM ev_type WHERE name = $1)
                 ON CONFLICT ON CONSTRAINT ev_type_name_key DO UPDATE SET name = EXCLUDED.name
                 RETURNING type_nid)
               SELECT type_nid AS "nid!" FROM fresh
               UNION ALL
               SELECT type_nid FROM ev_type WHERE name = $1
               LIMIT 1"#,
            name
        )
        .fetch_one(&self.pool)
        .await?;
        self.types.insert(name.to_owned(), TypeNid(nid));
        self.type_names.insert(TypeNid(nid), name.to_owned());
        Ok(TypeNid(nid))
    }

    /// The number of an event type, if it ever was seen.
    pub async fn find_event_type(&self, name: &str) -> Result<Option<TypeNid>, Error> {
        if let Some(nid) = self.types.get(name) {
            return Ok(Some(nid));
        }
        let found = sqlx::query_scalar!("SELECT type_nid FROM ev_type WHERE name = $1", name)
            .fetch_optional(&self.pool)
            .await?
            .map(TypeNid);
        if let Some(nid) = found {
            self.types.insert(name.to_owned(), nid);
            self.type_names.insert(nid, name.to_owned());
        }
        Ok(found)
    }
}

fn lost(table: &'static str, what: impl std::fmt::Display) -> Error {
    Error::Inconsistent {
        table,
        what: what.to_string(),
    }
}
