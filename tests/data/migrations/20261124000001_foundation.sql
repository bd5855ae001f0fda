INSERT INTO server (name) VALUES ('a.example');
INSERT INTO mx_user (server_nid, mxid) VALUES (1, '@alice:a.example');
INSERT INTO room (room_id, version, created_ts) VALUES ('!r:a.example', '11', 1);
INSERT INTO room_head (room_nid, rev, head_seq, depth, snap_nid, extrem, last_pos, last_ts) VALUES (1, 1, 1, 1, 2, '\x01', 1, 1);
INSERT INTO event (room_nid, event_nid, room_seq, pos, depth, origin_ts, recv_ts, sender_nid, event_key, event_tail, type_nid, flags, prev)
VALUES (1, 1, 1, 1, 1, 1, 1, 1, '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002', 6, 32, '\x');
INSERT INTO event_json (event_nid, body) VALUES (1, '\x007b7d');
INSERT INTO user_room (user_nid, room_nid, membership, pos) VALUES (1, 1, 1, 1);
