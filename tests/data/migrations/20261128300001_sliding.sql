INSERT INTO sliding_connection (user_nid, device_no, name, version, used_ts, body)
VALUES (1, 1, 'room-list', 5, 6, '\x007b7d');
