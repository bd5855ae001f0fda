INSERT INTO oauth_client (client_id, metadata, used_ts) VALUES ('c1', '{"client_uri": "https://chat.amt.example/"}', 1700000000000);
INSERT INTO oauth_session (user_nid, device_no, client_id, family_hash, granted_ts) VALUES (1, 1, 'c1', '\x00', 1700000000000);
INSERT INTO browser_session (token_hash, user_nid, expires_ts, sso_provider, sso_subject) VALUES ('\x01', 1, 1700000600000, 'keycloak', 'f00d');
INSERT INTO oauth_code (code_hash, client_id, browser_hash, user_nid, device_id, scope, redirect_uri, challenge, expires_ts) VALUES ('\x02', 'c1', '\x01', 1, 'DEV', 's', 'https://chat.amt.example/', 'x', 1700000600000);
INSERT INTO oauth_link (code_hash, user_code, client_id, device_id, scope, expires_ts) VALUES ('\x03', 'BCDFGHJK', 'c1', 'DEV', 's', 1700000600000);
UPDATE account SET cross_signing_until_ts = 1700000600000 WHERE user_nid = 1;
