INSERT INTO rendezvous (rendezvous_id, address, data, modified_ts, expires_ts) VALUES ('00000000-0000-0000-0000-000000000001', '127.0.0.1', 'x', 1, 2);
