"""The tables: Delta Lake in the data folder, written exactly once, queried with DuckDB."""

from tidegate.warehouse.warehouse import Warehouse

__all__ = ["Warehouse"]
