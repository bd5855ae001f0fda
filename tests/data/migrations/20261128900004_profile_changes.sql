INSERT INTO profile_change (user_nid, field, pos) VALUES (1, 'displayname', 31);
