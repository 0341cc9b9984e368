"""Labels: what events truly were, told later, by event id."""
