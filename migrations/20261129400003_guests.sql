-- Guests: accounts that anybody makes without a name or a password, where the operator admits them.

ALTER TABLE account ADD COLUMN guest boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN account.guest IS 'A guest: may do little, and be in rooms that admit guests only';
CREATE INDEX account_guest_ix ON account (user_nid) WHERE guest;
