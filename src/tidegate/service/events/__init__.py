"""`POST /v1/events`: records in; offsets and a report on each bad one out."""
