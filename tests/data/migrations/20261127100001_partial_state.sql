INSERT INTO partial_room (room_nid, since_pos, started_ts) VALUES (1, 1, 1);
UPDATE room_server SET told = true WHERE room_nid = 1;
INSERT INTO fed_inbox (room_nid, origin, event_id, recv_ts, body) VALUES (1, 'b.example', '$event', 1, '\x00');
