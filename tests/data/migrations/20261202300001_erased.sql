UPDATE account SET erased = true WHERE localpart_folded = 'alice';
