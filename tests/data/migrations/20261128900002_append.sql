INSERT INTO sticky_event (room_nid, event_nid, sender_nid, own, pos, ends_ts) VALUES (1, 1024, 1, true, 20, 1700000000000);
