-- What the sender asks the outbox: rooms of a peer, and who was just put out of one.

DROP INDEX room_server_server_ix;
CREATE INDEX room_server_server_ix ON room_server (server_nid) WHERE joined > 0 OR told;

CREATE INDEX fed_outbox_extra_ix ON fed_outbox (pos) WHERE extra <> '{}';
