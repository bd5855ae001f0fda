INSERT INTO event_unredacted (event_nid, room_nid, body, kept_ts) VALUES (1, 1, '\x00', 1700000000000);
