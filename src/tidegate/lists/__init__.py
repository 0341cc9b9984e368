"""Lists: values that people add and remove while the stream runs, which rules ask for."""
