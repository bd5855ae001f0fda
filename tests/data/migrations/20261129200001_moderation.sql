UPDATE account SET locked_ts = 5, suspended_ts = 6 WHERE user_nid = 1;
INSERT INTO report (kind, reporter_nid, room_id, event_id, user_id, reason, received_ts)
VALUES (1, 1, '!a:test', '$b', '@c:test', 'spam', 7);
INSERT INTO login_token (token_hash, user_nid, expires_ts) VALUES ('\x01', 1, 8);
