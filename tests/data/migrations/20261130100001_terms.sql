INSERT INTO terms_accepted (user_nid, policy, version, accepted_ts) VALUES (1, 'privacy_policy', '1', 5);
UPDATE account SET terms_told = 'privacy_policy=1' WHERE user_nid = 1;
INSERT INTO server_secret (purpose, secret) VALUES ('terms', '\x01');
