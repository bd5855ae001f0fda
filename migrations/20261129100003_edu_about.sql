-- Of a peer that is away only the newest updates of a device list wait: it sees the gap, and asks.

ALTER TABLE fed_edu ADD COLUMN about bigint;
COMMENT ON COLUMN fed_edu.about IS 'User whose devices or keys it tells of; null: a message to a device';
CREATE INDEX fed_edu_about_ix ON fed_edu (server_nid, about, edu_no) WHERE about IS NOT NULL;
