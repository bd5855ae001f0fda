INSERT INTO device_list (user_nid, stream_id, fresh) VALUES (2, 5, true);
INSERT INTO remote_device (user_nid, device_id, display_name, body) VALUES (2, 'DEV', 'phone', '{}');
INSERT INTO remote_cross_key (user_nid, kind, body) VALUES (2, 'master', '{}');
INSERT INTO device_stream (user_nid, stream_id) VALUES (1, 3);
