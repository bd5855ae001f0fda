-- The user directory: names by which users are found, kept in the background from the log.

CREATE TABLE user_directory (
  user_nid bigint CONSTRAINT user_directory_pkey PRIMARY KEY,
  display_name text,
  avatar_url text,
  words tsvector NOT NULL
);
COMMENT ON TABLE user_directory IS 'Users, ours and those of peers, by the names they are found under; who may find whom is looked up when somebody asks';
COMMENT ON COLUMN user_directory.user_nid IS 'User';
COMMENT ON COLUMN user_directory.display_name IS 'Of ours the name in the profile; of others the one they have in most of their rooms';
COMMENT ON COLUMN user_directory.avatar_url IS 'Picture that goes with it';
COMMENT ON COLUMN user_directory.words IS 'Words in lower case: A of the localpart, B of the name, C of the server';
CREATE INDEX user_directory_words_ix ON user_directory USING gin (words);

CREATE TABLE public_room (
  room_nid bigint CONSTRAINT public_room_pkey PRIMARY KEY
);
COMMENT ON TABLE public_room IS 'Rooms that anybody may join or read; those in our room directory are public besides';
COMMENT ON COLUMN public_room.room_nid IS 'Room';

CREATE TABLE directory_todo (
  room_nid bigint CONSTRAINT directory_todo_pkey PRIMARY KEY,
  after_user bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE directory_todo IS 'Rooms whose members are to be entered, all of them';
COMMENT ON COLUMN directory_todo.room_nid IS 'Room';
COMMENT ON COLUMN directory_todo.after_user IS 'Members up to this one are done';

CREATE TABLE directory_cursor (
  one boolean NOT NULL DEFAULT true CONSTRAINT directory_cursor_pkey PRIMARY KEY CONSTRAINT directory_cursor_one_check CHECK (one),
  pos bigint NOT NULL
);
COMMENT ON TABLE directory_cursor IS 'How far the directory has followed the log; who locks the row works on it';
COMMENT ON COLUMN directory_cursor.one IS 'There is one row';
COMMENT ON COLUMN directory_cursor.pos IS 'Stream position';

INSERT INTO directory_cursor (pos) SELECT last_value FROM stream_pos_seq;
INSERT INTO directory_todo (room_nid) SELECT room_nid FROM room_head;
