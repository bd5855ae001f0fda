INSERT INTO backup (user_nid, version, algorithm, auth_data) VALUES (1, 1, 'm.megolm_backup.v1.curve25519-aes-sha2', '{}');
INSERT INTO backup_key (user_nid, version, room_id, session_id, first_index, forwarded, verified, data)
  VALUES (1, 1, '!r:a.example', 's', 0, 0, true, '{}');
