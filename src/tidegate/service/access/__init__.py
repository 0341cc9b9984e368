"""Who may use which route: the table, and what holds callers to it."""
