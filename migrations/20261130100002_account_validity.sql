-- Accounts that end unless they are renewed.

ALTER TABLE account
  ADD COLUMN valid_until_ts bigint,
  ADD COLUMN renewal_token_hash bytea CONSTRAINT account_renewal_key UNIQUE,
  ADD COLUMN renewal_mailed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN account.valid_until_ts IS 'From when on its requests are refused, in milliseconds; NULL: not counted yet, or never';
COMMENT ON COLUMN account.renewal_token_hash IS 'SHA-256 of the token in the newest mail that renews it; NULL: none is out';
COMMENT ON COLUMN account.renewal_mailed IS 'Whether it was mailed that it ends, or is not to be';
CREATE INDEX account_valid_until_ix ON account (valid_until_ts) WHERE NOT renewal_mailed;
