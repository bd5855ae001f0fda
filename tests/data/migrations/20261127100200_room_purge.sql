INSERT INTO room_purge (room_nid, stage, forced, since_ts) VALUES (1, 0, false, 1700000000000);
