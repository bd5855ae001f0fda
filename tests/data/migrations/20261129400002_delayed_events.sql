INSERT INTO delayed_event (delay_id, user_nid, room_nid, kind, content, delay_ms, running_ts, due_ts)
VALUES ('a', 1, 1, 'm.room.message', '{}', 1000, 1700000000000, 1700000001000);
