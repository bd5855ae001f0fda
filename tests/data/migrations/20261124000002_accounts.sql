INSERT INTO account (user_nid, localpart_folded, created_ts) VALUES (1, 'alice', 1);
INSERT INTO device (user_nid, device_no, device_id, created_ts) VALUES (1, 1, 'DEVICE', 1);
INSERT INTO access_token (token_hash, user_nid, device_no) VALUES ('\x00', 1, 1);
INSERT INTO account_data (user_nid, room_nid, type, content, pos) VALUES (1, 0, 'm.direct', '{}', 1);
