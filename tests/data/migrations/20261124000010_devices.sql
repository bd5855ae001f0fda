INSERT INTO device_key (user_nid, device_no, body) VALUES (1, 1, '{}');
INSERT INTO one_time_key (user_nid, device_no, algorithm, key_id, body) VALUES (1, 1, 'signed_curve25519', 'AAAA', '{}');
INSERT INTO fallback_key (user_nid, device_no, algorithm, key_id, body) VALUES (1, 1, 'signed_curve25519', 'AAAB', '{}');
INSERT INTO cross_signing_key (user_nid, kind, body) VALUES (1, 'master', '{}');
INSERT INTO key_signature (user_nid, target, signer_nid, key_id, signature) VALUES (1, 'DEV', 1, 'ed25519:A', 'sig');
INSERT INTO to_device_txn (hash, ts) VALUES ('00000000-0000-0000-0000-000000000001', 1);
INSERT INTO device_change (user_nid, pos) VALUES (1, 1);
INSERT INTO fed_edu (server_nid, body) VALUES (1, '{}');
