"""Runs a project as a process: binds, opens the pipeline, serves, drains; gives an exit code."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import cast

import structlog
import uvicorn
import uvloop

from tidegate.errors import ProjectError, TidegateError
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project
from tidegate.project.tls import tls_context
from tidegate.service.app import create_app
from tidegate.service.logs import configure_logs
from tidegate.service.porter.lodge import Lodge, porters_of
from tidegate.service.processes import open_more_files, tune_interpreter
from tidegate.service.protocol import Connection, Limits
from tidegate.service.requests import RequestIds
from tidegate.service.signals import Signals
from tidegate.service.state import State

_log = structlog.get_logger()

_BACKLOG_CONNECTIONS = 2048
_KEEP_ALIVE_SECONDS = 60
# Requests that are still arriving when the server is told to stop have this long to become whole.
_ARRIVING_SECONDS = 1.0


def serve(
    project: Project,
    *,
    host: str | None = None,
    port: int | None = None,
    on_ready: Callable[[str], None] = lambda _url: None,
    json_logs: bool = False,
    bare: bool = False,
) -> int:
    """Run a project until SIGTERM or SIGINT; gives the exit code of the process.

    `host` and `port` are the project's unless given; port 0 takes any that is free. `on_ready` is
    called with the base URL once requests are taken. 0 after an orderly end, 1 if the address is
    taken, the project cannot be opened, or the engine failed; the log on stderr says why.
    Call it from the main thread. Raises: ProjectError if the project's files hold mistakes.
    """
    configure_logs(as_json=json_logs)
    open_more_files()
    signals = Signals()
    with signals.installed():
        try:
            listener = bind(host or project.service.host, _given(port, project.service.port))
        except OSError as error:
            where = f"{host or project.service.host}:{_given(port, project.service.port)}"
            _log.error("cannot_listen", address=where, reason=error.strerror or str(error))
            return 1
        with listener:
            return _serve(project, listener, signals=signals, on_ready=on_ready, bare=bare)


def _given(port: int | None, default: int) -> int:
    return default if port is None else port


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet. Raises: OSError."""
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    # A name may stand for IPv4 and IPv6: IPv4 is what senders try first on most machines.
    family, kind, protocol, _, address = min(found, key=lambda f: f[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket, *, scheme: str = "http") -> str:
    """The base URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _serve(
    project: Project,
    listener: socket.socket,
    *,
    signals: Signals,
    on_ready: Callable[[str], None],
    bare: bool,
) -> int:
    url = url_of(listener, scheme=_scheme(project))
    if not (project.access.required or _is_loopback(listener)):
        _log.error("open_without_keys", url=url, reason=_WITHOUT_KEYS)
        return 1
    try:
        pipeline = Pipeline(project).open(purpose=f"tidegate run at {url}", rebuild_beside=True)
    except ProjectError:
        raise
    except TidegateError as error:
        _log.error("cannot_open", data=str(project.data), reason=str(error))
        return 1
    try:
        ready = partial(_ready, project, listener, on_ready)
        server = _server(pipeline, on_ready=ready, bare=bare)
    except (TidegateError, OSError) as error:  # OSError: the certificate
        _log.error("cannot_open", data=str(project.data), reason=str(error))
        pipeline.close()
        return 1
    signals.stop = server.stop
    versions = {"version": pipeline.engine.program.version, "folder": pipeline.program.version}
    _log.info("deciding", **versions, follows=pipeline.follows)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listener]))
    return _close(pipeline)


def _ready(project: Project, listener: socket.socket, on_ready: Callable[[str], None]) -> None:
    url = url_of(listener, scheme=_scheme(project))
    if not _is_loopback(listener) and _scheme(project) == "http":
        reason = "keys and events travel unencrypted: name `service.tls_certificate`"
        _log.warning("open_to_others", url=url, reason=reason)
    _log.info("ready", url=url)
    on_ready(url)


def _scheme(project: Project) -> str:
    return "http" if project.service.tls_certificate is None else "https"


def _is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it; not so for an IPv4 address written as IPv6."""
    host: str = listener.getsockname()[0]
    return host == "::1" or host.startswith("127.")


_WITHOUT_KEYS = (
    "`access.required` is false, which only goes with an address of this machine: listen on "
    "127.0.0.1, or take the setting out and make keys by `tidegate keys`"
)


def _close(pipeline: Pipeline) -> int:
    seconds = pipeline.project.service.drain_timeout_us / 1e6
    try:
        drained = pipeline.close(drain_seconds=seconds)
    except TidegateError as error:
        _log.error("close_failed", reason=str(error))
        return 1
    if pipeline.failure is not None:
        return 1
    if not drained:
        reason = "what is not in the tables yet will be after the next start"
        _log.warning("not_drained", seconds=seconds, reason=reason)
    _log.info("stopped")
    return 0


def _server(pipeline: Pipeline, *, on_ready: Callable[[], None], bare: bool) -> Server:
    ids = RequestIds(secrets.token_hex(4))
    app = create_app(pipeline, request_ids=ids, bare=bare)
    state: State = app.state.service
    settings = state.settings
    lodge = Lodge(state)
    state.porters_wait = lambda: lodge.waiting
    limits = Limits(
        settings.body_bytes_max,
        settings.request_timeout_us / 1e6,
        ids=ids,
        tally=state.tally,
        routes=state.short_routes,
        admits=state.lets_post,
        lodge=lodge if porters_of(settings) else None,
    )
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Connection, limits=limits)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    state.note_keys()
    config.load()
    config.ssl = tls_context(settings, pipeline.project.root)
    return Server(config, state, lodge, on_ready=on_ready)


class Server(uvicorn.Server):
    """uvicorn with an orderly end of its own: no signal is raised again, nothing is cancelled."""

    def __init__(
        self, config: uvicorn.Config, state: State, lodge: Lodge, *, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._state, self._lodge = state, lodge
        lodge.adopt = self._adopt
        self._adopting: set[asyncio.Task[None]] = set()
        self._on_ready = on_ready
        self._sweep_ticks = 1 if state.settings.request_timeout_us < 5_000_000 else 10

    def stop(self) -> None:
        """Ask to stop; callable from a signal handler."""
        self._state.closing = True
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `Signals`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen and say so."""
        await super().startup(sockets=sockets)
        self._state.pipeline.together.join()
        tune_interpreter()
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: look for late requests and for a failed engine."""
        if counter % self._sweep_ticks == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.close_if_late(now)
        if self._state.pipeline.failure is not None and not self.should_exit:
            _log.critical("engine_failed", reason="see above")
            self.stop()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let running requests end, then close what is left."""
        _log.info("stopping", connections=len(self.server_state.connections))
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in self._connections():
            connection.shutdown()
        self._lodge.close()
        seconds = self._state.settings.drain_timeout_us / 1e6
        await self._until_quiet(min(_ARRIVING_SECONDS, seconds))
        for connection in self._connections():
            connection.refuse_unfinished()
        await self._until_quiet(seconds)
        for connection in self._connections():
            connection.transport.abort()
        self._lodge.kill()
        self._state.pipeline.together.leave()
        self._state.close()

    def _adopt(self, sock: socket.socket, data: bytes) -> None:
        """Take a connection that a porter gives back."""
        adopting = asyncio.get_running_loop().create_task(self._let_in(sock, data))
        self._adopting.add(adopting)
        adopting.add_done_callback(self._adopting.discard)

    async def _let_in(self, sock: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        made: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        make = partial(
            made,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=loop,
            first=data,
        )
        with suppress(OSError):  # it is gone
            await loop.connect_accepted_socket(make, sock)

    def _connections(self) -> list[Connection]:
        return cast("list[Connection]", list(self.server_state.connections))

    async def _until_quiet(self, seconds: float) -> None:
        """Wait until all connections are closed and all requests answered, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.server_state.connections or self.server_state.tasks or self._lodge.is_busy:
            if loop.time() >= deadline:
                return
            await asyncio.sleep(0.02)
