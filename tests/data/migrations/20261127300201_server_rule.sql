INSERT INTO server_rule (list, server, reason, until_ts, user_nid, since_ts)
VALUES ('deny', '*.evil.example', 'spam', 1999999999999, 1, 1764200000000), ('allow', 'good.example', NULL, NULL, 1, 1764200000000);
