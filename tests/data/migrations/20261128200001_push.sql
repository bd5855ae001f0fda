INSERT INTO push_rule_set (user_nid, rev, body, class, rooms, pos) VALUES (1, 1, '{}', 0, '{"!r:a.example": 1}', 1);
INSERT INTO thread (room_nid, root_key, root_id, last_seq, notif, high) VALUES (1, '00000000-0000-0000-0000-000000000001', '$a', 1, 1, 0);
INSERT INTO thread_read (user_nid, room_nid, root_key, read_seq) VALUES (1, 1, '00000000-0000-0000-0000-000000000001', 1);
INSERT INTO unread_void (room_nid, room_seq, notify, high) VALUES (1, 1, 1, 0);
INSERT INTO mention (user_nid, room_nid, room_seq, notify, high) VALUES (1, 1, 1, 0, 1);
