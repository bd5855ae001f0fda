INSERT INTO fed_edu (server_nid, body, ts) VALUES (1, '{}', 1);
