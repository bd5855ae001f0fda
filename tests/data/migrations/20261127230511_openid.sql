INSERT INTO openid_token (hash, user_nid, expires_ts) VALUES ('\x01', 1, 1);
