INSERT INTO stream_log (pos, kind, room_nid, user_nid, ref) VALUES (9000001, 15, 1, 1, 0);
