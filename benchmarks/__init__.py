"""Measurements of Tidegate beside plain yardsticks: `python -m benchmarks [names…]`."""
