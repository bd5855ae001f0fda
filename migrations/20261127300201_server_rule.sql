-- Servers that administrators allow and deny at run time.

CREATE TABLE server_rule (
  list text COLLATE "C" NOT NULL,
  server text COLLATE "C" NOT NULL,
  reason text,
  until_ts bigint,
  user_nid bigint NOT NULL,
  since_ts bigint NOT NULL,
  CONSTRAINT server_rule_pkey PRIMARY KEY (list, server),
  CONSTRAINT server_rule_list_check CHECK (list IN ('allow', 'deny'))
);
COMMENT ON TABLE server_rule IS 'Servers that are allowed or denied besides those of the configuration';
COMMENT ON COLUMN server_rule.list IS 'allow or deny';
COMMENT ON COLUMN server_rule.server IS 'Host, or a pattern of hosts with * and ?, in lower case';
COMMENT ON COLUMN server_rule.reason IS 'Why, as the administrator said';
COMMENT ON COLUMN server_rule.until_ts IS 'When the entry ends; null: never';
COMMENT ON COLUMN server_rule.user_nid IS 'Administrator who made the entry';
COMMENT ON COLUMN server_rule.since_ts IS 'When';
