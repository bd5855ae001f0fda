INSERT INTO dehydrated_device (user_nid, device_no, data) VALUES (1, 1, '{}');
