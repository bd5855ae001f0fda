INSERT INTO search_doc (room_nid, event_nid, room_seq, ts, sender_nid, kind, words)
VALUES (1, 1, 1, 5, 1, 0, search_words('Die Haushaltsmittel wurden bewilligt', 1));
INSERT INTO search_todo (event_nid, room_nid) VALUES (2, 1);
