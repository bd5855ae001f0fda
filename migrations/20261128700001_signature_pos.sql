-- Who signed a key of another user is told to look at it anew.

ALTER TABLE key_signature ADD COLUMN pos bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN key_signature.pos IS 'Stream position at which the signer is told of it; 0 for signatures on own keys, which everybody is told of';
CREATE INDEX key_signature_signer_ix ON key_signature (signer_nid, pos) WHERE pos > 0;
COMMENT ON COLUMN stream_log.kind IS '1 event, 2 receipt, 3 account data, 4 to-device, 5 device list, 6 profile, 7 push rules, 8 key counts, 9 signatures on keys of others, 10 cache invalidation, 11 out-of-band membership, 12 state whole, 21 server rule, 22 presence, 23 peer alive';
