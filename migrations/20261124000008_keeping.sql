-- How long things are kept, and documents that a notary passes on.

CREATE TABLE stream_mark (
  ts bigint CONSTRAINT stream_mark_pkey PRIMARY KEY,
  pos bigint NOT NULL
);
COMMENT ON TABLE stream_mark IS 'Which stream position was reached when: the log and the outbox have no times of their own';
COMMENT ON COLUMN stream_mark.ts IS 'Time';
COMMENT ON COLUMN stream_mark.pos IS 'Every position up to this was settled then';

CREATE TABLE key_document (
  server_name text COLLATE "C" CONSTRAINT key_document_pkey PRIMARY KEY,
  body text NOT NULL,
  valid_until_ts bigint NOT NULL,
  fetched_ts bigint NOT NULL
);
COMMENT ON TABLE key_document IS 'Newest key document of a peer as it signed it, for whoever asks us as a notary';
COMMENT ON COLUMN key_document.server_name IS 'Whose';
COMMENT ON COLUMN key_document.body IS 'The JSON, verified';
COMMENT ON COLUMN key_document.valid_until_ts IS 'Until when it says it is good';
COMMENT ON COLUMN key_document.fetched_ts IS 'When it was fetched';

