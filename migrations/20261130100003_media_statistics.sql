-- Pictures of rooms, so that media are kept that are somebody's.

ALTER TABLE room_summary ADD COLUMN avatar_url text;
COMMENT ON COLUMN room_summary.avatar_url IS 'url of m.room.avatar';
-- Summaries are made anew where their state is another.
UPDATE room_summary SET snap_nid = -1;
