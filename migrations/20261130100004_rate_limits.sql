-- Rate limits of single accounts.

ALTER TABLE account
  ADD COLUMN limit_per_second int,
  ADD COLUMN limit_burst int;
COMMENT ON COLUMN account.limit_per_second IS 'Events a second that it may send; 0: it is held to no limits; NULL: to those of everybody';
COMMENT ON COLUMN account.limit_burst IS 'Events that it may send at once; NULL as limit_per_second';
