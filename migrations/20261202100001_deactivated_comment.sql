-- A closed account can be opened again.

COMMENT ON COLUMN account.deactivated IS 'Closed, until an administrator opens it again; the name is never given to anybody else';
