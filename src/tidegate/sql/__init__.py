"""SQL on columns: parse, type-check and evaluate scalar expressions on a batch."""
