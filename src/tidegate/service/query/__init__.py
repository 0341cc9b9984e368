"""`POST /v1/query`: read-only SQL over the tables, in processes of its own."""
