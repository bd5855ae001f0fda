UPDATE account SET deactivated = true WHERE user_nid = 1;
UPDATE account SET deactivated = false WHERE user_nid = 1;
