"""The object-storage sink keeps the contract of sinks on every store, in every format."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from sink_rows import (
    CAPTURE_PATH,
    FRAUD_PATH,
    S3_ENVIRONMENT,
    S3_SECRETS,
    WINDOW_PATH,
    NewBucket,
    captured,
    decisions,
    opened,
    settings,
    window_rows,
)
from sink_servers import new_bucket, s3_server  # noqa: F401 - fixtures

from tidegate.sinks.decided import DecidedFeed
from tidegate.testing.sinks import Opener, RowsFeed, SinkContract


def decided(count: int) -> pa.Table:
    """The events that were sent to review or blocked, as their feed gives them."""
    events = RowsFeed(captured(count).drop_columns(["record"]), end=count)
    feed = DecidedFeed(events, RowsFeed(decisions(count), end=count), actions=("review", "block"))
    return feed.read(0, until=count, rows_max=count).rows


class OnFolder(SinkContract):
    """Each test on a folder of its own."""

    form = "capture"
    path = CAPTURE_PATH
    partitions = 1

    @pytest.fixture
    def rows(self) -> pa.Table:
        return captured(40)

    @pytest.fixture
    def new_place(self, tmp_path: Path, rows: pa.Table) -> Callable[[], Opener]:
        numbers = itertools.count()

        def new() -> Opener:
            written = settings(
                f"{next(numbers)}/blobs", path=self.path, form=self.form, partitions=self.partitions
            )
            return lambda: opened(written, rows, tmp_path)

        return new


class TestCaptureInFolder(OnFolder):
    pass


class TestCaptureInFolderByPartition(OnFolder):
    partitions = 4


class TestCaptureInFolderWithoutAnyHole(OnFolder):
    path = "everything"
    partitions = 3


class TestEventFilesInFolder(OnFolder):
    form = "event"
    path = FRAUD_PATH

    @pytest.fixture
    def rows(self) -> pa.Table:
        return decided(40)


class TestArraysInFolder(TestEventFilesInFolder):
    form = "json"


class TestLinesInFolder(TestEventFilesInFolder):
    form = "ndjson"


class TestWindowArraysInFolder(OnFolder):
    form = "json"
    path = WINDOW_PATH

    @pytest.fixture
    def rows(self) -> pa.Table:
        return window_rows(8)


class TestWindowLinesInOneFolder(TestWindowArraysInFolder):
    form = "ndjson"
    path = "all"


class TestWindowRowsEachInAFile(TestWindowArraysInFolder):
    form = "event"
    path = "{yyyy}"


class OnMemory(OnFolder):
    """Each test in a store in memory, reached through fsspec."""

    @pytest.fixture
    def new_place(self, tmp_path: Path, rows: pa.Table) -> Callable[[], Opener]:
        def new() -> Opener:
            written = settings(f"memory://{uuid.uuid4()}", path=self.path, form=self.form)
            return lambda: opened(written, rows, tmp_path)

        return new


class TestCaptureInMemory(OnMemory):
    pass


class TestWindowArraysInMemory(OnMemory):
    form = "json"
    path = WINDOW_PATH

    @pytest.fixture
    def rows(self) -> pa.Table:
        return window_rows(8)


class OnS3(OnFolder):
    """Each test in a bucket of its own, over HTTP."""

    @pytest.fixture
    def new_place(
        self, s3_server: str, new_bucket: NewBucket, tmp_path: Path, rows: pa.Table
    ) -> Callable[[], Opener]:
        def new() -> Opener:
            written = settings(
                f"s3://{new_bucket()}/warehouse",
                path=self.path,
                form=self.form,
                options={"endpoint_url": s3_server},
                options_env=S3_SECRETS,
            )
            return lambda: opened(written, rows, tmp_path, **S3_ENVIRONMENT)

        return new


class TestCaptureOnS3(OnS3):
    pass


class TestEventFilesOnS3(OnS3):
    form = "event"
    path = FRAUD_PATH

    @pytest.fixture
    def rows(self) -> pa.Table:
        return decided(20)
