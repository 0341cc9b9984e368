"""Features: window functions over each entity's events, exact for every event as it arrives."""
