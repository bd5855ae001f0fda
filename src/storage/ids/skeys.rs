//! Numbers of pairs of event type and state key.

use std::collections::HashSet;

use ruma::UserId;

use super::{Ids, MEMBER, SINGLE, SKeyNid, TypeNid, UserNid, lost};
use crate::storage::Error;

impl Ids {
    /// The number of a pair of event type and state key, given one when it is new.
    pub async fn skey(&self, kind: &str, key: &str) -> Result<SKeyNid, Error> {
        if kind == MEMBER {
            // A member event of something that is no user id is never accepted; it still needs a
            // key, and gets an ordinary one.
            if let Ok(user) = <&UserId>::try_from(key) {
                return Ok(SKeyNid(-self.user(user).await?.0));
            }
        }
        let kind_nid = self.event_type(kind).await?;
        if let Some(nid) = self.skeys.get(&(kind_nid, key.to_owned())) {
            return Ok(nid);
        }
        let nid = sqlx::query_scalar!(
            r#"WITH fresh AS (
                 INSERT INTO state_key (type_nid, key)
                 SELECT $1, $2
                 WHERE NOT EXISTS (SELECT 1 FROM state_key WHERE type_nid = $1 AND key = $2)
                 ON CONFLICT ON CONSTRAINT state_key_key DO UPDATE SET key = EXCLUDED.key
                 RETURNING skey_nid)
               SELECT skey_nid AS "nid!" FROM fresh
               UNION ALL
               SELECT skey_nid FROM state_key WHERE type_nid = $1 AND key = $2
               LIMIT 1"#,
            kind_nid.0,
            key
        )
        .fetch_one(&self.pool)
        .await?;
        self.keep_skey(SKeyNid(nid), kind_nid, kind, key);
        Ok(SKeyNid(nid))
    }

    /// The number of a pair of event type and state key, if we have ever seen it.
    pub async fn find_skey(&self, kind: &str, key: &str) -> Result<Option<SKeyNid>, Error> {
        if kind == MEMBER
            && let Ok(user) = <&UserId>::try_from(key)
        {
            return Ok(self.find_user(user).await?.map(|nid| SKeyNid(-nid.0)));
        }
        if key.is_empty() && SINGLE.contains(&kind) {
            // Asked for with every room: better a number that no room has than a query for each.
            return Ok(Some(self.skey(kind, key).await?));
        }
        if let Some(kind_nid) = self.types.get(kind)
            && let Some(nid) = self.skeys.get(&(kind_nid, key.to_owned()))
        {
            return Ok(Some(nid));
        }
        let row = sqlx::query!(
            "SELECT k.skey_nid, k.type_nid
             FROM state_key k
             JOIN ev_type t ON t.type_nid = k.type_nid
             WHERE t.name = $1 AND k.key = $2",
            kind,
            key
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| {
            self.keep_skey(SKeyNid(row.skey_nid), TypeNid(row.type_nid), kind, key);
            SKeyNid(row.skey_nid)
        }))
    }

    /// Brings the numbers of pairs into memory that will be asked for with [`Self::find_skey`], but
    /// those of members: one query where any is not there yet.
    pub async fn prepare_skeys(&self, mut pairs: HashSet<(String, String)>) -> Result<(), Error> {
        pairs.retain(|(kind, key)| {
            let known = |kind| self.skeys.contains_key(&(kind, key.clone()));
            kind != MEMBER && !self.types.get(kind).is_some_and(known)
        });
        if pairs.is_empty() {
            return Ok(());
        }
        let (kinds, keys): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
        let rows = sqlx::query!(
            "SELECT t.name, k.type_nid, k.key, k.skey_nid
             FROM unnest($1::text[], $2::text[]) AS w (kind, key)
             JOIN ev_type t ON t.name = w.kind
             JOIN state_key k ON k.type_nid = t.type_nid AND k.key = w.key",
            &kinds,
            &keys
        )
        .fetch_all(&self.pool)
        .await?;
        for row in rows {
            let (skey, kind) = (SKeyNid(row.skey_nid), TypeNid(row.type_nid));
            self.keep_skey(skey, kind, &row.name, &row.key);
        }
        Ok(())
    }

    /// Event type and state key of many numbers, in the order asked.
    pub async fn skey_pairs_of(&self, nids: &[SKeyNid]) -> Result<Vec<(String, String)>, Error> {
        let users: Vec<UserNid> = nids
            .iter()
            .filter(|nid| nid.0 < 0)
            .map(|nid| UserNid(-nid.0))
            .collect();
        let mut members = self.user_ids_of(&users).await?.into_iter();
        let missing: Vec<i64> = nids
            .iter()
            .filter(|nid| nid.0 > 0 && !self.skey_pairs.contains_key(*nid))
            .map(|nid| nid.0)
            .collect();
        if !missing.is_empty() {
            let rows = sqlx::query!(
                "SELECT k.skey_nid, k.type_nid, t.name, k.key
                 FROM state_key k
                 JOIN ev_type t ON t.type_nid = k.type_nid
                 WHERE k.skey_nid = ANY($1)",
                &missing
            )
            .fetch_all(&self.pool)
            .await?;
            for row in rows {
                self.keep_skey(
                    SKeyNid(row.skey_nid),
                    TypeNid(row.type_nid),
                    &row.name,
                    &row.key,
                );
            }
        }
        nids.iter()
            .map(|nid| {
                if nid.0 < 0 {
                    let user = members.next().ok_or_else(|| lost("mx_user", nid.0))?;
                    return Ok((MEMBER.to_owned(), user.to_string()));
                }
                self.skey_pairs
                    .get(nid)
                    .ok_or_else(|| lost("state_key", nid.0))
            })
            .collect()
    }

    fn keep_skey(&self, nid: SKeyNid, kind_nid: TypeNid, kind: &str, key: &str) {
        self.types.insert(kind.to_owned(), kind_nid);
        self.type_names.insert(kind_nid, kind.to_owned());
        self.skeys.insert((kind_nid, key.to_owned()), nid);
        self.skey_pairs
            .insert(nid, (kind.to_owned(), key.to_owned()));
    }
}
