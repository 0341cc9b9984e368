"""Bytes to events: decoding at the door of the engine, and the reasons of what is no event."""
