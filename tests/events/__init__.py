"""Tests of events and of their ids."""
