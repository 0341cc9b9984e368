"""Route by scope: the one table that says who may use what.

A path that is in no row does not exist for callers, and a method that a row does not name is
refused, whatever the application behind it has. A test walks the application's routes and fails
where one of them has no row here.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY_METHOD = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Row:
    """A route, or with `/*` at its end all that is below a path, and who may use it.

    One of `scopes` is enough. Where there is none, the route is open to all.
    """

    path: str
    methods: frozenset[str]
    scopes: tuple[str, ...]

    @property
    def allow(self) -> str:
        """The methods as the `Allow` header lists them."""
        return ", ".join(sorted(self.methods))


def _row(methods: str, path: str, *scopes: str) -> Row:
    return Row(path, frozenset(methods.split()) if methods else EVERY_METHOD, scopes)


TABLE = (
    _row("POST", "/v1/events", "ingest"),
    _row("POST", "/v1/score", "score"),
    _row("POST", "/v1/labels", "label"),
    _row("GET", "/v1/decisions/*", "score", "query"),
    _row("POST", "/v1/query", "query"),
    _row("", "/v1/lists", "admin"),
    _row("", "/v1/lists/*", "admin"),
    _row("", "/v1/versions", "admin"),
    _row("", "/v1/versions/*", "admin"),
    _row("GET POST", "/v1/keys", "admin"),
    _row("DELETE", "/v1/keys/*", "admin"),
    _row("GET", "/metrics", "query", "admin"),
    _row("GET POST", "/store-events-producer-fn", "ingest"),
    _row("POST", "/bare", "ingest"),
    _row("POST", "/bare/json", "ingest"),
    _row("GET", "/healthz"),
    _row("GET", "/readyz"),
    _row("GET", "/openapi.json"),
    _row("GET", "/docs"),
    _row("GET", "/docs/oauth2-redirect"),
    _row("GET", "/redoc"),
    _row("GET", "/static-offline-docs/*"),
)
_EXACT = {row.path: row for row in TABLE if not row.path.endswith("*")}
_BELOW = [(row.path.removesuffix("*"), row) for row in TABLE if row.path.endswith("*")]


def row_of(path: str) -> Row | None:
    """The row of a path as it was asked for (or as a route declares it); None if it has none.

    >>> row_of("/v1/events").scopes, row_of("/v1/decisions/p1").scopes, row_of("/v1/else")
    (('ingest',), ('score', 'query'), None)
    """
    row = _EXACT.get(path)
    if row is not None:
        return row
    return next((row for begin, row in _BELOW if path.startswith(begin)), None)
