-- What administrators withdrew is listed.

CREATE INDEX media_quarantined_ix ON media (media_nid) WHERE quarantined_by IS NOT NULL;
