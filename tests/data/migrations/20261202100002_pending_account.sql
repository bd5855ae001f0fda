INSERT INTO pending_account (secret_hash, sid, localpart, password_hash, token, terms) VALUES ('\x00', 'sid', 'neu', '$argon2id$x', 'geheim', 'v1');
