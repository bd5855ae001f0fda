UPDATE partial_room SET through_nid = 1 WHERE room_nid = 1;
