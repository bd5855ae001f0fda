-- The server that let us in said what the state is; it is the first to be asked for the rest of it.

ALTER TABLE partial_room ADD COLUMN through_nid int;
COMMENT ON COLUMN partial_room.through_nid IS 'Server that the room was joined through; null: joined before this was noted';
