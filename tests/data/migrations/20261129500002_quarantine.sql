UPDATE media SET quarantined_by = 1 WHERE media_nid = 1;
