INSERT INTO url_preview (key, body, expires_ts) VALUES ('\x01', '{}', 9);
UPDATE media SET preview_ts = 9;
