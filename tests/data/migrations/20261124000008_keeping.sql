INSERT INTO stream_mark (ts, pos) VALUES (1700000000000, 10);
INSERT INTO key_document (server_name, body, valid_until_ts, fetched_ts)
  VALUES ('peer.example', '{}', 1700000000000, 1690000000000);
