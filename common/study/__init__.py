"""A study: the runs that a table needs, bringing them to their end, and the table and report of them."""
