"""`tidegate top`: what a running server is doing, live."""

from __future__ import annotations

from typing import Annotated

import typer


def top(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT|URL",
            help="A project's folder, or a server's address such as http://127.0.0.1:8700.",
            show_default=False,
        ),
    ],
    once: Annotated[  # noqa: FBT002 - an option by name
        bool, typer.Option("--once", help="Print one picture and end.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that a picture covers.")
    ] = 2.0,
    ca: Annotated[
        str | None,
        typer.Option("--ca", metavar="FILE", help="The authority of the server's certificate."),
    ] = None,
) -> None:
    """Watch a running server: rates, latencies by stage, backlog, lags, state, rules that hit.

    Reads /metrics. Where the server asks for an API key, one of scope query or admin is taken from
    the environment variable TIDEGATE_KEY.
    """
    from tidegate.cli.watch import Source, watch

    watch(Source.of(target, ca=ca), seconds=every, once=once)
