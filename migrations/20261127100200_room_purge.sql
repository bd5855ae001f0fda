-- Freeing rooms: which of them are being deleted, so that it goes on after a crash and nobody enters meanwhile.

CREATE TABLE room_purge (
  room_nid bigint CONSTRAINT room_purge_pkey PRIMARY KEY,
  stage smallint NOT NULL,
  forced boolean NOT NULL,
  since_ts bigint NOT NULL
);
COMMENT ON TABLE room_purge IS 'Rooms whose rows are being deleted; gone when there is nothing left to do';
COMMENT ON COLUMN room_purge.room_nid IS 'Room';
COMMENT ON COLUMN room_purge.stage IS '0 wanted (given up when a local user is in the room again), 1 under way (the head is gone, nobody may enter), 2 done but for events that peers are still owed';
COMMENT ON COLUMN room_purge.forced IS 'Goes ahead although local users are in the room';
COMMENT ON COLUMN room_purge.since_ts IS 'When it was wanted';

-- Account data of a room, whoever owns it.
CREATE INDEX account_data_room_ix ON account_data (room_nid) WHERE room_nid <> 0;

-- Nobody enters a room that is being deleted. The lock orders this and the beginning of a deletion, which
-- takes the same row for update.
CREATE FUNCTION room_head_enter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM room WHERE room_nid = NEW.room_nid FOR SHARE;
  IF EXISTS (SELECT 1 FROM room_purge WHERE room_nid = NEW.room_nid AND stage = 1) THEN
    RAISE EXCEPTION 'room % is being deleted', NEW.room_nid;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER room_head_enter_trg BEFORE INSERT ON room_head FOR EACH ROW EXECUTE FUNCTION room_head_enter();
