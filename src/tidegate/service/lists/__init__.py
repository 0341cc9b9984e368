"""Lists over HTTP: values put there, taken off, shown."""
