-- Account data can be deleted (MSC3391), of which syncs have to tell.
ALTER TABLE account_data ADD COLUMN gone boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN account_data.gone IS 'Whether it was deleted: the content is empty, and syncs tell so';
