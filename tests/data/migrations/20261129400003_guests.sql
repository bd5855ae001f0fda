UPDATE account SET guest = true WHERE user_nid = 1;
