INSERT INTO room_block (room_id, user_nid, since_ts) VALUES ('!bad:peer.example', 1, 1700000000000);
INSERT INTO room_deletion (delete_id, room_id, user_nid, order_json, status, result_json, created_ts)
  VALUES ('abc', '!r:a.example', 1, '{}', 'scheduled', '{}', 1700000000000);
INSERT INTO room_summary (room_nid, snap_nid, creator, federatable, state_events)
  VALUES (1, 1, '@a:a.example', true, 5);
