INSERT INTO thread_sub (user_nid, room_nid, root_key, root_id, subscribed, automatic, ended_seq, pos) VALUES (1, 1, '00000000-0000-0000-0000-000000000001', '$root', true, false, NULL, 30);
