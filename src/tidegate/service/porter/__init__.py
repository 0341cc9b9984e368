"""Porters: processes that keep connections of `POST /v1/score` while many wait.

Half of what a decision costs is HTTP, and only one thread of a process runs Python at a time. A
connection that asks for one while many wait is given to a porter, which reads its requests, hands
them to the house many at a time, and writes the answers. Everything else (other routes, whatever is
not plain) is the house's, and a connection that brings such a request is given back with all that
was read of it. Who may ask, and what is decided, only the house knows.
"""
