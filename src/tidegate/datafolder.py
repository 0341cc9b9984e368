"""The data folder: where each thing lies in it, who holds it, and the secret it was made with."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import IO

from tidegate.errors import DamageError, LockedError

_KEY_BYTES = 16


class DataFolder:
    """Paths inside a data folder; `lock` makes this process the one that decides and writes.

    Appending to the log and reading the tables need no lock, and other processes do both.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log.sqlite"
        self.tables = root / "tables"
        self.snapshots = root / "snapshots"
        self.dedupe = root / "dedupe"
        self.ledger = root / "sinks.sqlite"
        self.operational = root / "operational.sqlite"
        self._lock: IO[str] | None = None
        for folder in (root, self.tables, self.snapshots, self.dedupe):
            folder.mkdir(parents=True, exist_ok=True)

    def lock(self, *, purpose: str) -> None:
        """Take the folder for this process until `unlock`, or until the process ends.

        `purpose` is shown to whoever finds it locked. Raises: LockedError.
        """
        file = (self.root / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise LockedError(f"{self.root} is in use by {holder}") from error
        file.seek(0)
        file.truncate()
        file.write(f"{purpose} (process {os.getpid()})")
        file.flush()
        self._lock = file

    def unlock(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.seek(0)
            self._lock.truncate()
            self._lock.close()
            self._lock = None

    def key(self) -> bytes:
        """The installation's 16 secret bytes, made once; they seed the hashing of ids."""
        path = self.root / "installation.key"
        if not path.exists():
            draft = path.with_suffix(".draft")
            descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)  # a draft that was left behind may have been wider
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise DamageError(f"{path} holds {len(key)} bytes, expected {_KEY_BYTES}")
        return key
