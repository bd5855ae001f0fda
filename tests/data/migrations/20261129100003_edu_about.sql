INSERT INTO fed_edu (server_nid, body, about) VALUES (1, '{}', 1);
