//! State snapshots: deltas and checkpoints.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::{
    Error, RoomNid,
    codec::{push_varint, take_varint, unzigzag, zigzag},
};

/// One change of a delta: (state key, old event or 0, new event or 0).
pub type Change = (i64, i64, i64);

/// A snapshot as stored.
#[derive(Clone, Debug)]
pub struct Snap {
    /// Snapshot.
    pub nid: i64,
    /// What the delta applies to; `None`: a root.
    pub parent: Option<i64>,
    /// Distance from the root.
    pub generation: i32,
    /// Deltas since the last checkpoint.
    pub since: i32,
    /// What changed.
    pub delta: Vec<Change>,
}

/// A delta as stored.
pub fn encode_delta(delta: &[Change]) -> Vec<u8> {
    let mut out = Vec::with_capacity(delta.len() * 12);
    for (skey, old, new) in delta {
        push_varint(&mut out, zigzag(*skey));
        push_varint(&mut out, old.cast_unsigned());
        push_varint(&mut out, new.cast_unsigned());
    }
    out
}

/// What [`encode_delta`] was given; `None`: these are no such bytes.
pub fn decode_delta(mut bytes: &[u8]) -> Option<Vec<Change>> {
    let mut delta = Vec::new();
    while !bytes.is_empty() {
        let skey = unzigzag(take_varint(&mut bytes)?);
        let old = take_varint(&mut bytes)?.cast_signed();
        let new = take_varint(&mut bytes)?.cast_signed();
        delta.push((skey, old, new));
    }
    Some(delta)
}

/// A full state as stored. `entries` must be sorted by state key.
pub fn encode_checkpoint(entries: &[(i64, i64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 6);
    let (mut last_skey, mut last_event) = (0_i64, 0_i64);
    for (skey, event) in entries {
        push_varint(&mut out, zigzag(skey.wrapping_sub(last_skey)));
        push_varint(&mut out, zigzag(event.wrapping_sub(last_event)));
        (last_skey, last_event) = (*skey, *event);
    }
    out
}

/// What [`encode_checkpoint`] was given; `None`: these are no such bytes.
pub fn decode_checkpoint(mut bytes: &[u8]) -> Option<Vec<(i64, i64)>> {
    let mut entries = Vec::new();
    let (mut skey, mut event) = (0_i64, 0_i64);
    while !bytes.is_empty() {
        skey = skey.wrapping_add(unzigzag(take_varint(&mut bytes)?));
        event = event.wrapping_add(unzigzag(take_varint(&mut bytes)?));
        entries.push((skey, event));
    }
    Some(entries)
}

fn broken(table: &'static str, nid: i64) -> Error {
    Error::Inconsistent {
        table,
        what: format!("snapshot {nid} does not decode"),
    }
}

/// Snapshots by number, with their deltas, in no order.
pub async fn list(
    conn: &mut PgConnection,
    room: RoomNid,
    nids: &[i64],
) -> Result<Vec<Snap>, Error> {
    let rows = sqlx::query!(
        "SELECT snap_nid, parent, gen, since_ckpt, delta
         FROM state_snap
         WHERE room_nid = $1 AND snap_nid = ANY($2)",
        room.0,
        nids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Snap {
                nid: row.snap_nid,
                parent: row.parent,
                generation: row.r#gen,
                since: row.since_ckpt,
                delta: decode_delta(&row.delta)
                    .ok_or_else(|| broken("state_snap", row.snap_nid))?,
            })
        })
        .collect()
}

/// The chain of snapshots from `nid` down to and with the nearest one that has a checkpoint,
/// newest first. One query; the walk is bounded by the checkpoint interval.
pub async fn chain(conn: &mut PgConnection, room: RoomNid, nid: i64) -> Result<Vec<Snap>, Error> {
    let mut chains = chains(conn, &[(room.0, nid)]).await?;
    Ok(chains.remove(&room.0).unwrap_or_default())
}

/// For each of some (room, snapshot) what [`chain`] gives, by room: one snapshot of a room.
pub async fn chains(
    conn: &mut PgConnection,
    snaps: &[(i64, i64)],
) -> Result<HashMap<i64, Vec<Snap>>, Error> {
    let (rooms, nids): (Vec<i64>, Vec<i64>) = snaps.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"WITH RECURSIVE walk AS (
             SELECT s.room_nid, s.snap_nid, s.parent, s.gen, s.since_ckpt, s.delta
             FROM unnest($1::bigint[], $2::bigint[]) AS w (room, snap)
             JOIN state_snap s ON s.room_nid = w.room AND s.snap_nid = w.snap
             UNION ALL
             SELECT s.room_nid, s.snap_nid, s.parent, s.gen, s.since_ckpt, s.delta
             FROM walk w
             JOIN state_snap s ON s.room_nid = w.room_nid AND s.snap_nid = w.parent
             WHERE w.since_ckpt > 0)
           SELECT room_nid AS "room_nid!", snap_nid AS "snap_nid!", parent, gen AS "gen!",
             since_ckpt AS "since_ckpt!", delta AS "delta!"
           FROM walk
           ORDER BY room_nid, gen DESC"#,
        &rooms,
        &nids
    )
    .fetch_all(conn)
    .await?;
    let mut chains: HashMap<i64, Vec<Snap>> = HashMap::with_capacity(snaps.len());
    for row in rows {
        chains.entry(row.room_nid).or_default().push(Snap {
            nid: row.snap_nid,
            parent: row.parent,
            generation: row.r#gen,
            since: row.since_ckpt,
            delta: decode_delta(&row.delta).ok_or_else(|| broken("state_snap", row.snap_nid))?,
        });
    }
    Ok(chains)
}

/// For each of some (room, snapshot) what [`checkpoint`] gives, by room.
pub async fn checkpoints(
    conn: &mut PgConnection,
    snaps: &[(i64, i64)],
) -> Result<HashMap<i64, Vec<(i64, i64)>>, Error> {
    let (rooms, nids): (Vec<i64>, Vec<i64>) = snaps.iter().copied().unzip();
    let rows = sqlx::query!(
        "SELECT c.room_nid, c.snap_nid, c.body
         FROM unnest($1::bigint[], $2::bigint[]) AS w (room, snap)
         JOIN state_ckpt c ON c.room_nid = w.room AND c.snap_nid = w.snap",
        &rooms,
        &nids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let entries =
                decode_checkpoint(&row.body).ok_or_else(|| broken("state_ckpt", row.snap_nid))?;
            Ok((row.room_nid, entries))
        })
        .collect()
}

/// The checkpoint of a snapshot: (state key, event) sorted by state key.
pub async fn checkpoint(
    conn: &mut PgConnection,
    room: RoomNid,
    nid: i64,
) -> Result<Option<Vec<(i64, i64)>>, Error> {
    let mut checkpoints = checkpoints(conn, &[(room.0, nid)]).await?;
    Ok(checkpoints.remove(&room.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode_checkpoint, decode_delta, encode_checkpoint, encode_delta};

    proptest! {
        #[test]
        fn deltas_round_trip(delta in prop::collection::vec((any::<i64>(), 0..i64::MAX, 0..i64::MAX), 0..30)) {
            prop_assert_eq!(decode_delta(&encode_delta(&delta)).unwrap(), delta);
        }

        #[test]
        fn checkpoints_round_trip(state in prop::collection::btree_map(any::<i64>(), any::<i64>(), 0..50)) {
            let entries: Vec<_> = state.into_iter().collect();
            prop_assert_eq!(decode_checkpoint(&encode_checkpoint(&entries)).unwrap(), entries);
        }
    }
}
