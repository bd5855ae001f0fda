-- Events by time: what was said on a certain day (timestamp_to_event).
CREATE INDEX event_ts_ix ON event (room_nid, origin_ts) WHERE room_seq IS NOT NULL;
