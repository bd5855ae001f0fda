INSERT INTO threepid (medium, address, user_nid, validated_ts, added_ts) VALUES ('email', 'anna@amt.example', 1, 1700000000000, 1700000000000);
INSERT INTO validation (sid, purpose, address, secret_hash, token_hash, attempt, next_link, created_ts, expires_ts) VALUES ('sid', 1, 'anna@amt.example', '\x00', '\x01', 1, NULL, 1700000000000, 1700003600000);
INSERT INTO mail_room (pusher_id, room_nid, due_ts) VALUES (1, 1, 1700000600000);
