"""Where objects are put: a folder, or whatever fsspec reaches by URL.

An object is there whole or not at all, and putting it again replaces it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import sync

from tidegate.errors import InputError, StorageFullError, UnreachableError

File = tuple[str, bytes]  # its key, relative to the store, and its content

_Thing = TypeVar("_Thing")

_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG,
}  # fmt: skip
_EXTRAS = {"s3": "s3", "s3a": "s3"}
_AT_ONCE = 16  # objects put or fetched by one call, each call with the whole time limit


class Store(Protocol):
    """A place for objects. Raises, from every method: UnreachableError, StorageFullError."""

    def put(self, files: Iterable[File]) -> None:
        """Make the objects durable; those of the same key are replaced."""

    def keys(self, prefix: str) -> list[str]:
        """The keys below the folder `prefix` ("" for all), sorted."""

    def get(self, keys: Sequence[str]) -> Iterator[File]:
        """The objects of these keys, in order."""

    def close(self) -> None:
        """Release connections; closing twice is fine."""


def open_store(
    url: str,
    *,
    folder: Path,
    options: Mapping[str, Any],
    secrets: Mapping[str, str],
    timeout_seconds: float,
) -> Store:
    """The store behind a URL; a path is relative to `folder`. Nothing is connected to yet.

    `options` and `secrets` go to the fsspec file system together; a secret never shows in an error.
    Raises: InputError if nothing serves such a URL, naming the command that installs it.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return FolderStore(folder / url)
    if scheme in ("file", "local"):
        return FolderStore(Path(rest))
    return RemoteStore(url, options=options, secrets=secrets, timeout_seconds=timeout_seconds)


class FolderStore:
    """Objects as files below a folder, synced to disk before `put` returns."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, files: Iterable[File]) -> None:
        """Make the objects durable; those of the same key are replaced."""
        with _faults(str(self._root)):
            paths, touched = [], set[Path]()
            for key, content in files:  # which may be made one by one, so none is held for long
                paths.append(self._root / key)
                touched.update(_make_folders(paths[-1].parent))
                _unfinished(paths[-1]).write_bytes(content)
            # Synced after all are written: the first sync then carries most of the others along.
            for path in paths:
                _sync(_unfinished(path))
            for path in paths:
                _unfinished(path).replace(path)
            for changed in touched | {path.parent for path in paths}:
                _sync(changed)

    def keys(self, prefix: str) -> list[str]:
        """The keys below the folder `prefix` ("" for all), sorted."""
        with _faults(str(self._root)):
            return sorted(
                path.relative_to(self._root).as_posix()
                for path in (self._root / prefix).rglob("*")
                if path.is_file() and not path.name.startswith(".")
            )

    def get(self, keys: Sequence[str]) -> Iterator[File]:
        """The objects of these keys, in order."""
        for key in keys:
            with _faults(str(self._root)):
                content = (self._root / key).read_bytes()
            yield key, content

    def close(self) -> None:
        """Nothing is held."""


def _make_folders(folder: Path) -> list[Path]:
    """Make the folder and those above it; returns the ones in which an entry was made."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return [f.parent for f in missing]


def _unfinished(path: Path) -> Path:
    # The same name each time: what a crash leaves behind is used up by the repeated delivery.
    return path.with_name(f".{path.name}.tmp")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RemoteStore:
    """Objects in a store that fsspec knows; one call puts an object whole, so no renaming.

    Each call may take `timeout_seconds`. Failures are reported at once: the runner waits them out.
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any],
        secrets: Mapping[str, str],
        timeout_seconds: float,
    ) -> None:
        self._secrets = tuple(s for s in secrets.values() if s)
        self._shown = shown_url(url)
        scheme = urlsplit(url).scheme
        all_options = {**_DEFAULTS.get(scheme, {}), **options, **secrets}
        try:
            self._fs: Any
            self._fs, root = fsspec.url_to_fs(url, skip_instance_cache=True, **all_options)
        except ImportError as error:
            raise InputError(_missing(scheme, error)) from error
        except ValueError as error:
            raise InputError(f"cannot use {self._shown}: {self._redacted(error)}") from error
        self._root = root.rstrip("/")
        self._foreign = _foreign_errors(scheme)
        if hasattr(self._fs, "retries"):
            self._fs.retries = 1
        self._timeout_seconds = timeout_seconds

    def put(self, files: Iterable[File]) -> None:
        """Make the objects durable; those of the same key are replaced."""
        for some in _groups(files):
            self._call("pipe_file", [(f"{self._root}/{key}", content) for key, content in some])

    def keys(self, prefix: str) -> list[str]:
        """The keys below the folder `prefix` ("" for all), sorted."""
        (found,) = self._call("find", [(f"{self._root}/{prefix}".rstrip("/"),)])
        return sorted(path[len(self._root) + 1 :] for path in found)

    def get(self, keys: Sequence[str]) -> Iterator[File]:
        """The objects of these keys, in order."""
        for some in _groups(keys):
            contents = self._call("cat_file", [(f"{self._root}/{key}",) for key in some])
            yield from zip(some, contents, strict=True)

    def _call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call the file system with each of the arguments, all at once where it can do that.

        Only asynchronous file systems can be told how long a call may take.
        """
        with self._outside():
            if not self._fs.async_impl:
                return [getattr(self._fs, method)(*each) for each in arguments]
            call = getattr(self._fs, f"_{method}")  # fsspec's name for the coroutine
            limit = self._timeout_seconds
            results: list[Any] = sync(self._fs.loop, _all, call, arguments, timeout=limit)
            for error in results:
                if isinstance(error, BaseException):
                    raise error
            return results

    def close(self) -> None:
        """Release connections; closing twice is fine."""
        self._fs = None  # its finalizer closes them

    @contextmanager
    def _outside(self) -> Iterator[None]:
        if self._fs is None:
            raise UnreachableError(f"{self._shown} is closed")
        try:
            with _faults(self._shown, redact=self._redacted):
                yield
        except self._foreign as error:
            raise UnreachableError(
                f"cannot reach {self._shown}: {self._redacted(error)}"
            ) from error

    def _redacted(self, error: BaseException) -> str:
        text = _described(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


async def _all(call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    # Failures are results here: one that nobody asks for would be shouted about by asyncio.
    return await asyncio.gather(*(call(*each) for each in arguments), return_exceptions=True)


_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    scheme: {"use_listings_cache": False, "config_kwargs": {"retries": {"max_attempts": 0}}}
    for scheme in ("s3", "s3a")
}


def shown_url(url: str) -> str:
    """The URL without what may be secret in it.

    >>> shown_url("s3://key:secret@bucket/prefix?token=1")
    's3://bucket/prefix'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _missing(scheme: str, error: ImportError) -> str:
    if scheme in _EXTRAS:
        return f"`{scheme}://` needs more: pip install tidegate[{_EXTRAS[scheme]}]"
    return f"`{scheme}://` needs more: {error}"


def _foreign_errors(scheme: str) -> tuple[type[Exception], ...]:
    """The errors of the client library behind a scheme that are no OSError."""
    if scheme not in _EXTRAS:
        return ()
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import (  # type: ignore[import-untyped]
        BotoCoreError,
        ClientError,
    )

    return (BotoCoreError, ClientError, HttpError)


@contextmanager
def _faults(shown: str, *, redact: Callable[[BaseException], str] | None = None) -> Iterator[None]:
    """Errors of the operating system, and those made to look like them, as ours."""
    try:
        yield
    except OSError as error:
        text = (redact or _described)(error)
        if error.errno in _UNWRITABLE or isinstance(error, PermissionError):
            raise StorageFullError(f"cannot write to {shown}: {text}") from error
        raise UnreachableError(f"cannot reach {shown}: {text}") from error


def _described(error: BaseException) -> str:
    kind = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return f"{kind}: {error}" if str(error) else kind


def _groups(things: Iterable[_Thing]) -> Iterator[list[_Thing]]:
    left = iter(things)
    while some := list(islice(left, _AT_ONCE)):
        yield some
