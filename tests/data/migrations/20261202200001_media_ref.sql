INSERT INTO media_ref (media_nid, room_nid, event_nid) VALUES (1, 1, 1024);
UPDATE media_ref_todo SET after_nid = 1024 WHERE room_nid = 1;
UPDATE media SET uploaded_ts = 2 WHERE media_nid = 1;
