"""`GET /healthz` and `GET /readyz`: whether the process lives, and whether it keeps up."""
