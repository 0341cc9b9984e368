"""Backtest: other rules over history, against those of the project and against the labels."""
