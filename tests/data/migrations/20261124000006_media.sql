INSERT INTO media (server_nid, media_id, user_nid, blob, size, sha256, content_type, created_ts, last_access_ts)
VALUES (1, 'abc', 1, '00000000-0000-0000-0000-000000000003', 1, '\x00', 'image/png', 1, 1);
INSERT INTO media_thumbnail (media_nid, width, height, crop, blob, size, content_type)
VALUES (1, 32, 32, true, '00000000-0000-0000-0000-000000000004', 1, 'image/png');
INSERT INTO media_loose (blob, loose_ts) VALUES ('00000000-0000-0000-0000-000000000005', 1);
