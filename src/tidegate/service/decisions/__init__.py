"""`GET /v1/decisions/{event_id}`: what was decided on an event, and why."""
