INSERT INTO appservice (id, pos) VALUES ('irc', 10);
INSERT INTO appservice_queue (appservice_nid, pos, kind, room_nid, user_nid, ref) VALUES (1, 11, 1, 1, 1, 1024);
INSERT INTO appservice_txn (appservice_nid, txn_id, body) VALUES (1, '1_a', '\x007b7d');
INSERT INTO appservice_invite (room_nid, user_nid, body) VALUES (1, 1, '\x007b7d');
INSERT INTO appservice_room (appservice_id, network_id, room_nid) VALUES ('irc', 'libera', 1);
