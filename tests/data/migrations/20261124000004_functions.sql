SELECT log_append('{3}', '{0}', '{1}', '{0}');
