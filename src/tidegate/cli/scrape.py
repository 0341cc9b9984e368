"""A server's metrics as they were at one moment, and what changed between two."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

from tidegate.errors import RequestError, UnreachableError

KEY_VARIABLE = "TIDEGATE_KEY"
_SECONDS_MAX = 10.0
_BYTES_MAX = 64 << 20

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the metrics are asked for. The key is never shown."""

    url: str
    key: str | None
    context: ssl.SSLContext | None

    @classmethod
    def of(
        cls, target: str, *, ca: str | None = None, environment: Mapping[str, str] = os.environ
    ) -> Self:
        """The source at an address, or that of a project's folder.

        Raises: ProjectError, RequestError for an address that is none.
        """
        url = target if "://" in target else _url_of(Path(target))
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"`{target}` is neither a folder nor a URL", code="bad_url")
        context = None
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=ca)
            except OSError as error:
                raise RequestError(f"cannot read `{ca}`: {error}", code="bad_file") from error
        return cls(f"{parts.scheme}://{parts.netloc}", environment.get(KEY_VARIABLE), context)

    def read(self) -> Scrape:
        """The metrics now. Raises: UnreachableError, RequestError where they are not shown."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = Request(self.url + "/metrics", headers=headers)  # noqa: S310 - HTTP, as checked
        try:
            with urlopen(request, timeout=_SECONDS_MAX, context=self.context) as answer:  # noqa: S310 - as above
                text = answer.read(_BYTES_MAX).decode()
        except HTTPError as error:
            raise RequestError(_refused(self.url, error.code), code="refused") from error
        except (URLError, OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "reason", error)
            raise UnreachableError(f"{self.url} does not answer: {reason}") from error
        return Scrape.of(text)


def _url_of(folder: Path) -> str:
    from tidegate.project.project import load

    service = load(folder).service
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(service.host, service.host)  # noqa: S104 - what is listened on
    scheme = "https" if service.tls_certificate else "http"
    return (
        f"{scheme}://[{host}]:{service.port}"
        if ":" in host
        else f"{scheme}://{host}:{service.port}"
    )


def _refused(url: str, status: int) -> str:
    if status in (401, 403):
        return f"{url} asks for an API key of scope query or admin: put one into {KEY_VARIABLE}"
    return f"{url}/metrics answers with status {status}"


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples by name and labels; `at` is the machine's clock in seconds."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def of(cls, text: str, *, at: float | None = None) -> Self:
        """What Prometheus' text format says."""
        samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = frozenset(sample.labels.items())
                samples.setdefault(sample.name, {})[labels] = sample.value
        return cls(time.monotonic() if at is None else at, samples)

    def value(self, name: str, **labels: str) -> float:
        """A sample's value; 0 where there is none."""
        return self.samples.get(name, {}).get(frozenset(labels.items()), 0.0)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of a name by one of its labels, added up over the others."""
        found: dict[str, float] = {}
        for labels, value in self.samples.get(name, {}).items():
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + value
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two scrapes."""

    before: Scrape
    after: Scrape

    @property
    def seconds(self) -> float:
        """The time between them."""
        return max(self.after.at - self.before.at, 1e-9)

    def rates(self, name: str, label: str) -> dict[str, float]:
        """How much each series of a counter grew in a second; one that began anew from 0."""
        before, after = self.before.by(name, label), self.after.by(name, label)
        return {key: _grown(before.get(key, 0.0), now) / self.seconds for key, now in after.items()}

    def rate(self, name: str) -> float:
        """The same for all series together."""
        return sum(self.rates(name, "").values())

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """The quantile of a histogram's observations between the two, linear within a bucket.

        None where there were none; the last bucket's lower end where it lies beyond all others.
        """
        buckets = self._buckets(name, labels)
        total = buckets[-1][1] if buckets else 0.0
        if total <= 0:
            return None
        wanted, low, below = share * total, 0.0, 0.0
        for high, count in buckets:
            if count >= wanted and count > below:
                if high == float("inf"):
                    return low
                return low + (high - low) * (wanted - below) / (count - below)
            low, below = high, count
        return low

    def count(self, name: str, **labels: str) -> float:
        """Observations of a histogram a second."""
        buckets = self._buckets(name, labels)
        return buckets[-1][1] / self.seconds if buckets else 0.0

    def _buckets(self, name: str, labels: Mapping[str, str]) -> list[tuple[float, float]]:
        """Upper ends and how many observations lay below each, ascending."""
        found = []
        before = self.before.samples.get(f"{name}_bucket", {})
        for series, value in self.after.samples.get(f"{name}_bucket", {}).items():
            of = dict(series)
            end = float(of.pop("le"))
            if of == dict(labels):
                found.append((end, _grown(before.get(series, 0.0), value)))
        return sorted(found)


def _grown(before: float, after: float) -> float:
    return after - before if after >= before else after
