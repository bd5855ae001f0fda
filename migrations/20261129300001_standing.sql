-- What a user has to do with a room may change without an event: syncs that remember it are told.

COMMENT ON COLUMN stream_log.kind IS '1 event, 2 receipt, 3 account data, 4 to-device, 5 device list, 6 profile, 7 push rules, 8 key counts, 9 signatures, 10 cache invalidation, 11 out-of-band membership, 12 partial room whole, 13 thread subscription, 14 event owed once more, 15 standing in a room changed without an event, 21 server rule, 22 presence, 23 peer alive';
