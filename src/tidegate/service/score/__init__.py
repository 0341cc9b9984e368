"""`POST /v1/score`: decisions while somebody waits."""
