-- Previews of web pages that messages link to.

CREATE TABLE url_preview (
  key bytea CONSTRAINT url_preview_pkey PRIMARY KEY,
  body text NOT NULL,
  expires_ts bigint NOT NULL
);
COMMENT ON TABLE url_preview IS 'Previews of web pages, kept for a while';
COMMENT ON COLUMN url_preview.key IS 'SHA-256 of URL and languages: which links are looked at is not kept';
COMMENT ON COLUMN url_preview.body IS 'What clients are answered';
COMMENT ON COLUMN url_preview.expires_ts IS 'Until when it is good';
CREATE INDEX url_preview_expires_ix ON url_preview (expires_ts);

ALTER TABLE media ADD COLUMN preview_ts bigint;
COMMENT ON COLUMN media.preview_ts IS 'When it was fetched as image of a preview, and is kept for a day; null: it is none';
CREATE INDEX media_preview_ix ON media (preview_ts) WHERE preview_ts IS NOT NULL;
