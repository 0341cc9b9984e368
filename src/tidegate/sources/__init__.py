"""Where records come from: a module for each kind of place."""
