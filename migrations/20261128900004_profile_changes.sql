-- Which fields of profiles have changed, for who wants to be told (MSC4262, MSC4429).

CREATE TABLE profile_change (
  user_nid bigint NOT NULL,
  field text COLLATE "C" NOT NULL,
  pos bigint NOT NULL,
  CONSTRAINT profile_change_pkey PRIMARY KEY (user_nid, field)
);
COMMENT ON TABLE profile_change IS 'Fields of profiles of local users that were ever set or removed';
COMMENT ON COLUMN profile_change.user_nid IS 'Local user';
COMMENT ON COLUMN profile_change.field IS 'Name of the field';
COMMENT ON COLUMN profile_change.pos IS 'Stream position of the last change';
CREATE INDEX profile_change_pos_ix ON profile_change (pos);
