UPDATE account SET limit_per_second = 5, limit_burst = 50 WHERE user_nid = 1;
