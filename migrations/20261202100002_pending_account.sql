-- Accounts that wait until whoever makes one has proved to read an address.

CREATE TABLE pending_account (
  secret_hash bytea CONSTRAINT pending_account_pkey PRIMARY KEY,
  sid text COLLATE "C" NOT NULL,
  localpart text COLLATE "C" NOT NULL,
  password_hash text NOT NULL,
  token text COLLATE "C",
  terms text
);
COMMENT ON TABLE pending_account IS 'Accounts that are made when the code in a mail comes; deleted some time after the code is over';
COMMENT ON COLUMN pending_account.secret_hash IS 'SHA-256 of the cookie of the browser that asked';
COMMENT ON COLUMN pending_account.sid IS 'Proof of the address that is under way, in validation';
COMMENT ON COLUMN pending_account.localpart IS 'The name that is asked for; others may still get it';
COMMENT ON COLUMN pending_account.password_hash IS 'The password, as account.password_hash';
COMMENT ON COLUMN pending_account.token IS 'Registration token, used up when the account is made; null: none is asked for';
COMMENT ON COLUMN pending_account.terms IS 'Versions of the terms that were agreed to; null: there are none';
