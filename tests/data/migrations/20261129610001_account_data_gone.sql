UPDATE account_data SET gone = true, content = '{}' WHERE type = 'nothing';
