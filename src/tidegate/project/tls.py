"""The certificate that the server shows, and its key: files that the project names."""

from __future__ import annotations

import ssl
from pathlib import Path

from tidegate.errors import ProjectError
from tidegate.project.document import Document
from tidegate.project.files import SETTINGS_FILE
from tidegate.project.reader import Reader
from tidegate.project.settings import Service


def tls_context(service: Service, root: Path) -> ssl.SSLContext | None:
    """What connections are encrypted with, TLS 1.2 at least; None where no certificate is named.

    Raises: OSError, which `ssl.SSLError` is, where the files cannot be read or do not fit.
    """
    if service.tls_certificate is None or service.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A key that is locked is refused: without a password given, the library asks on the terminal.
    context.load_cert_chain(root / service.tls_certificate, root / service.tls_key, password="")
    return context


def check_tls_files(service: Service, *, root: Path, settings: str) -> None:
    """The certificate and its key can be read, and belong together; `settings` names them.

    Raises: ProjectError, pointing at the name.
    """
    reader = Reader(Document(settings, file=SETTINGS_FILE), {})
    for key, name in (("tls_certificate", service.tls_certificate), ("tls_key", service.tls_key)):
        if name is None:
            return
        try:
            (root / name).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name no file can have
            reason = getattr(error, "strerror", None) or str(error)
            reader.refuse(("service", key), f"`{name}` cannot be read: {reason.lower()}")
    if not reader.problems:
        _check_pair(reader, service, root)
    if reader.problems:
        raise ProjectError(reader.problems)


def _check_pair(reader: Reader, service: Service, root: Path) -> None:
    try:
        tls_context(service, root)
    except OSError as error:
        reason = getattr(error, "reason", None) or str(error)
        message = f"`{service.tls_certificate}` and `{service.tls_key}` cannot be used: {reason}"
        hint = "both in PEM; the key belongs to the certificate and has no password"
        reader.refuse(("service", "tls_certificate"), message, hint=hint)
