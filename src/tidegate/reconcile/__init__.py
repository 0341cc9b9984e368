"""Each stage compared with the one before it, down to the missing id."""
