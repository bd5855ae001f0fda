INSERT INTO presence (user_nid, local, state, status_msg, currently_active, last_active_ts, seen_ts, pos)
VALUES (1, true, 2, 'in the office', true, 5, 6, 1), (2, false, 0, NULL, false, 0, 6, 2);
