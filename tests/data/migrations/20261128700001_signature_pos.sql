INSERT INTO key_signature (user_nid, target, signer_nid, key_id, signature, pos) VALUES (1, 'MASTER', 2, 'ed25519:B', 'sig', 7);
