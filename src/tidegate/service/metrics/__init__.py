"""`GET /metrics`: what the pipeline and the service are doing, for Prometheus."""
