INSERT INTO external_id (provider, subject, user_nid, added_ts) VALUES ('keycloak', 'f00d', 1, 1700000000000);
INSERT INTO sso_login (state_hash, cookie_hash, provider, nonce, verifier, redirect_url, expires_ts) VALUES ('\x00', '\x01', 'keycloak', 'n', 'v', 'https://chat.amt.example/', 1700000600000);
INSERT INTO sso_session (user_nid, device_no, provider, subject, sid) VALUES (1, 1, 'keycloak', 'f00d', 's1');
INSERT INTO sso_logout (provider, jti_hash, expires_ts) VALUES ('keycloak', '\x02', 1700000600000);
INSERT INTO login_token (token_hash, user_nid, expires_ts, sso_provider, sso_subject, sso_sid) VALUES ('\x03', 1, 8, 'keycloak', 'f00d', 's1');
