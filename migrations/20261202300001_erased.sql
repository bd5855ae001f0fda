-- Users who were erased are listed at every start.

CREATE INDEX account_erased_ix ON account (user_nid) WHERE erased;
