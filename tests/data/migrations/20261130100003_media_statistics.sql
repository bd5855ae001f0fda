UPDATE room_summary SET avatar_url = 'mxc://a.test/b' WHERE room_nid = 1;
