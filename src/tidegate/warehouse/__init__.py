"""The tables: Delta Lake in the data folder, written exactly once, queried with DuckDB."""

from tidegate.warehouse.query import QueryResult, TableInfo, query, tables
from tidegate.warehouse.warehouse import Warehouse

__all__ = ["QueryResult", "TableInfo", "Warehouse", "query", "tables"]
