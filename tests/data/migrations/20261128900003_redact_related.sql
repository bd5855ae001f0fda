INSERT INTO redact_todo (room_nid, target_key, user_nid, rels, reason, after_seq, upto_seq, ts) VALUES (1, '00000000-0000-0000-0000-000000000001', 1, '{m.thread}', 'spam', 0, 9, 1700000000000);
