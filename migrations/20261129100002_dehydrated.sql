-- Devices that nobody is logged in with: they collect messages for the next device of their owner.

CREATE TABLE dehydrated_device (
  user_nid bigint CONSTRAINT dehydrated_device_pkey PRIMARY KEY,
  device_no int NOT NULL,
  data text NOT NULL
);
COMMENT ON TABLE dehydrated_device IS 'The device of a user that waits to be taken over (MSC3814)';
COMMENT ON COLUMN dehydrated_device.user_nid IS 'Owner';
COMMENT ON COLUMN dehydrated_device.device_no IS 'Device; its keys and messages are where those of others are';
COMMENT ON COLUMN dehydrated_device.data IS 'device_data of the client, encrypted by it, JSON';
