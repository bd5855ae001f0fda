-- Messages to devices of a peer that does not come back do not wait without end.

ALTER TABLE fed_edu ADD COLUMN ts bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000)::bigint;
ALTER TABLE fed_edu ALTER COLUMN ts DROP DEFAULT;
COMMENT ON COLUMN fed_edu.ts IS 'Since when it waits; of rows from before this column: since its migration';
CREATE INDEX fed_edu_ts_ix ON fed_edu (ts) WHERE about IS NULL;

-- How many wait for a peer is counted in the index alone.
DROP INDEX fed_edu_server_ix;
CREATE INDEX fed_edu_server_ix ON fed_edu (server_nid, edu_no) INCLUDE (about);
