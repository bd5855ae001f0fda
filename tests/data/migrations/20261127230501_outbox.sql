UPDATE fed_outbox SET extra = ARRAY[1] WHERE room_nid = 1;
