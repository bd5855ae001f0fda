INSERT INTO server_key (server_name, key_id, public_key, valid_until_ts, fetched_ts) VALUES ('b.example', 'ed25519:1', '\x00', 1, 1);
INSERT INTO fed_dest (server_nid, acked_pos) VALUES (1, 1);
INSERT INTO fed_outbox (pos, room_nid, event_nid) VALUES (1, 1, 1);
