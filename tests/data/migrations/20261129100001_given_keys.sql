INSERT INTO one_time_key (user_nid, device_no, algorithm, key_id, body, given_ts) VALUES (1, 1, 'signed_curve25519', 'AAAC', '{}', 1);
