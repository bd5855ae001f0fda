INSERT INTO relation (room_nid, child_nid, parent_key, rel_nid, room_seq, type_nid, sender_nid, edit_ts)
VALUES (1, 3, '00000000-0000-0000-0000-000000000001', 1, 1, 1, 1, 5);
INSERT INTO thread_part (room_nid, root_key, sender_nid, n, last_seq) VALUES (1, '00000000-0000-0000-0000-000000000001', 1, 1, 1);
