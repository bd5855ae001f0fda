-- Media: what is stored, whose it is, and who may see it. The bytes are files in data_dir/media.

CREATE TABLE media (
  media_nid bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT media_pkey PRIMARY KEY,
  server_nid int NOT NULL,
  media_id text COLLATE "C" NOT NULL,
  user_nid bigint,
  blob uuid,
  size bigint NOT NULL DEFAULT 0,
  sha256 bytea,
  content_type text,
  file_name text,
  created_ts bigint NOT NULL,
  expires_ts bigint,
  last_access_ts bigint NOT NULL,
  quarantined_by bigint,
  protected boolean NOT NULL DEFAULT false,
  CONSTRAINT media_id_key UNIQUE (server_nid, media_id)
);
COMMENT ON TABLE media IS 'Media of ours, and copies of media of peers';
COMMENT ON COLUMN media.media_nid IS 'Number';
COMMENT ON COLUMN media.server_nid IS 'Server of the mxc address';
COMMENT ON COLUMN media.media_id IS 'Media id of the mxc address';
COMMENT ON COLUMN media.user_nid IS 'Who uploaded it; null: a copy from a peer';
COMMENT ON COLUMN media.blob IS 'File that holds the bytes; null: reserved, not uploaded yet';
COMMENT ON COLUMN media.size IS 'Bytes';
COMMENT ON COLUMN media.sha256 IS 'Hash of the bytes: a quarantine holds for every copy of the same bytes';
COMMENT ON COLUMN media.content_type IS 'What the uploader called it; null: nothing';
COMMENT ON COLUMN media.file_name IS 'Name the uploader gave';
COMMENT ON COLUMN media.created_ts IS 'When it was reserved, uploaded, or fetched';
COMMENT ON COLUMN media.expires_ts IS 'Until when a reserved id may be uploaded to; null: uploaded';
COMMENT ON COLUMN media.last_access_ts IS 'Last download, written at most once an hour';
COMMENT ON COLUMN media.quarantined_by IS 'Administrator who withdrew it; null: served';
COMMENT ON COLUMN media.protected IS 'An administrator protected it from quarantine by room or user';
CREATE INDEX media_user_ix ON media (user_nid, created_ts) WHERE user_nid IS NOT NULL;
CREATE INDEX media_sha256_ix ON media (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX media_access_ix ON media (last_access_ts);
CREATE INDEX media_expires_ix ON media (expires_ts) WHERE expires_ts IS NOT NULL;

CREATE TABLE media_thumbnail (
  media_nid bigint NOT NULL CONSTRAINT media_thumbnail_media_fk REFERENCES media ON DELETE CASCADE,
  width int NOT NULL,
  height int NOT NULL,
  crop boolean NOT NULL,
  blob uuid NOT NULL,
  size bigint NOT NULL,
  content_type text NOT NULL,
  CONSTRAINT media_thumbnail_pkey PRIMARY KEY (media_nid, width, height, crop)
);
COMMENT ON TABLE media_thumbnail IS 'Thumbnails, made when they are first asked for';
COMMENT ON COLUMN media_thumbnail.media_nid IS 'Of which media';
COMMENT ON COLUMN media_thumbnail.width IS 'Width of the frame it was made for';
COMMENT ON COLUMN media_thumbnail.height IS 'Height of that frame';
COMMENT ON COLUMN media_thumbnail.crop IS 'Fills the frame and is cut; else it fits into it';
COMMENT ON COLUMN media_thumbnail.blob IS 'File that holds the bytes';
COMMENT ON COLUMN media_thumbnail.size IS 'Bytes';
COMMENT ON COLUMN media_thumbnail.content_type IS 'image/png or image/jpeg';

CREATE TABLE media_loose (
  blob uuid CONSTRAINT media_loose_pkey PRIMARY KEY,
  loose_ts bigint NOT NULL
);
COMMENT ON TABLE media_loose IS 'Files that no row owns: being written, or to be deleted';
COMMENT ON COLUMN media_loose.blob IS 'File';
COMMENT ON COLUMN media_loose.loose_ts IS 'Since when; a file that is old enough is deleted';
CREATE INDEX media_loose_ts_ix ON media_loose (loose_ts);
