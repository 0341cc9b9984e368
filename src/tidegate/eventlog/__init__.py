"""The durable log of everything received: contract and SQLite implementation."""
