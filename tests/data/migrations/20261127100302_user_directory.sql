INSERT INTO user_directory (user_nid, display_name, words) VALUES (2, 'Bea', '''bea'':1B');
INSERT INTO public_room (room_nid) VALUES (1);
INSERT INTO directory_todo (room_nid) VALUES (1) ON CONFLICT DO NOTHING;
