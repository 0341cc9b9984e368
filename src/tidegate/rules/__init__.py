"""Rules: a SQL condition with an action, a reason in words and a mode."""
