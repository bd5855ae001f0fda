UPDATE account SET valid_until_ts = 9, renewal_token_hash = '\x02', renewal_mailed = true WHERE user_nid = 1;
