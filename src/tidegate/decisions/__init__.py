"""Rules hit (and later the score) made into one decision for each event."""
