"""What a courier does next: read, plan, deliver, wait, try again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sink_rows import captured
from sink_rows import settings as written

from tidegate.errors import UnreachableError
from tidegate.sinks import courier as courier_module
from tidegate.sinks.contract import Delivery, Sink
from tidegate.sinks.courier import Courier, Pace
from tidegate.sinks.ledger import Ledger, Position
from tidegate.sinks.objects import Objects, layout_of
from tidegate.sinks.store import File, FolderStore
from tidegate.testing.clock import ManualClock
from tidegate.testing.sinks import RowsFeed, offsets_of

SECOND = 1_000_000
PACE = Pace(every_us=10 * SECOND, rows_max=100, pause_min_us=SECOND, pause_max_us=8 * SECOND)


def numbers(*offsets: int) -> pa.Table:
    """Rows of nothing but their offset."""
    return pa.table({"log_offset": pa.array(offsets, pa.int64())})


class Outside:
    """A sink in memory that notes deliveries and fails when told to."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[int, int]] = []
        self.rows: list[int] = []
        self.error: Exception | None = None

    def write(self, delivery: Delivery) -> None:
        if self.error is not None:
            raise self.error
        self.deliveries.append((delivery.first_offset, delivery.next_offset))
        self.rows += delivery.rows.column("log_offset").to_numpy().tolist()

    def delivered(self) -> Iterator[pa.Table]:
        yield numbers(*self.rows)

    def close(self) -> None:
        pass


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000 * SECOND)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "sinks.sqlite")) as made:
        yield made


Make = Callable[..., Courier]


@pytest.fixture
def make(outside: Outside, clock: ManualClock, ledger: Ledger) -> Make:
    """How a courier is made on the sink, clock and ledger of this test."""

    def made(
        feed: RowsFeed,
        pace: Pace = PACE,
        sink: Sink = outside,
        delivered: Callable[[int], None] = lambda _: None,
    ) -> Courier:
        return Courier(
            "s", sink=sink, feed=feed, ledger=ledger, pace=pace, clock=clock,
            random=lambda: 0.0, delivered=delivered,
        )  # fmt: skip

    return made


def settle(courier: Courier, *, drain: bool = False) -> int:
    """Step until the courier wants to rest; returns for how long."""
    while (rest := courier.step(drain=drain)) == 0:
        pass
    return rest


def caught_up(make: Make, *, rows: int, pace: Pace = PACE) -> tuple[Courier, RowsFeed]:
    """A courier that found its feed empty at first, and `rows` rows that then came."""
    feed = RowsFeed(numbers(*range(1000)), end=0)
    courier = make(feed, pace)
    settle(courier)
    feed.reached = rows
    return courier, feed


def test_what_waits_at_the_start_is_delivered_at_once(make: Make, outside: Outside) -> None:
    settle(make(RowsFeed(numbers(0, 1, 2), end=3)))
    assert outside.deliveries == [(0, 3)]


def test_young_rows_wait(make: Make, outside: Outside) -> None:
    courier, _ = caught_up(make, rows=5)
    assert settle(courier) == PACE.every_us
    assert outside.deliveries == []


def test_rows_are_delivered_when_the_oldest_has_waited_long_enough(
    make: Make, outside: Outside, clock: ManualClock
) -> None:
    courier, feed = caught_up(make, rows=5)
    settle(courier)
    clock.advance(9 * SECOND)
    feed.reached = 7
    assert settle(courier) == SECOND
    clock.advance(SECOND)
    settle(courier)
    assert outside.deliveries == [(0, 7)]


def test_a_delivery_is_made_when_enough_rows_are_there(make: Make, outside: Outside) -> None:
    courier, _ = caught_up(make, rows=250)
    settle(courier)
    assert outside.deliveries == [(0, 100), (100, 200)]


def test_a_delivery_is_made_when_enough_bytes_are_there(make: Make, outside: Outside) -> None:
    courier, _ = caught_up(make, rows=1000, pace=Pace(every_us=SECOND, bytes_max=800))
    settle(courier)
    sizes = [until - first for first, until in outside.deliveries]
    assert 5 < len(sizes) < 20
    assert all(70 <= size <= 200 for size in sizes)


def test_no_more_is_read_for_a_delivery_than_the_rows_before_let_expect(
    make: Make, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide rows would else fill the memory at the begin of each delivery."""
    monkeypatch.setattr(courier_module, "_ROW_BYTES_ASSUMED", 1)  # they have eight
    courier, _ = caught_up(make, rows=1000, pace=Pace(every_us=SECOND, bytes_max=800))
    settle(courier)
    assert outside.deliveries == [(0, 800), (800, 900), (900, 1000)]


def test_few_rows_far_apart_are_gathered(make: Make, outside: Outside, clock: ManualClock) -> None:
    feed = RowsFeed(numbers(100, 900, 1700), end=0)
    courier = make(feed)
    settle(courier)
    for reached in range(0, 2000, 150):
        feed.reached = reached
        settle(courier)
    assert outside.deliveries == []
    clock.advance(10 * SECOND)
    settle(courier)
    assert outside.deliveries == [(0, 1950)]


def test_draining_delivers_what_is_young(make: Make, outside: Outside) -> None:
    courier, _ = caught_up(make, rows=5)
    settle(courier, drain=True)
    assert outside.deliveries == [(0, 5)]


def test_an_empty_stretch_moves_the_offset_and_delivers_nothing(
    make: Make, outside: Outside, ledger: Ledger
) -> None:
    settle(make(RowsFeed(numbers(), end=50)))
    assert (outside.deliveries, ledger.open("s")) == ([], Position(50))


def test_the_plan_is_durable_before_anything_is_written(
    make: Make, ledger: Ledger, outside: Outside
) -> None:
    outside.error = UnreachableError("down")
    make(RowsFeed(numbers(0, 1), end=2)).step()
    assert ledger.open("s") == Position(0, planned=2)


def test_after_a_crash_the_same_delivery_is_made_again_though_more_is_there(
    make: Make, outside: Outside
) -> None:
    feed = RowsFeed(numbers(*range(9)), end=2)
    outside.error = UnreachableError("down")
    make(feed).step()
    outside.error = None
    feed.reached = 9
    settle(make(feed))
    assert outside.deliveries == [(0, 2), (2, 9)]


def test_a_planned_delivery_waits_until_its_feed_is_whole_again(
    make: Make, outside: Outside, ledger: Ledger
) -> None:
    ledger.open("s")
    ledger.plan("s", first=0, until=5)
    feed = RowsFeed(numbers(*range(9)), end=3)
    courier = make(feed)
    assert settle(courier) == PACE.every_us
    feed.reached = 6
    settle(courier)
    assert outside.deliveries[0] == (0, 5)


def test_pauses_double_up_to_the_longest(make: Make, outside: Outside, clock: ManualClock) -> None:
    outside.error = UnreachableError("down")
    courier = make(RowsFeed(numbers(0), end=1))
    pauses = []
    for _ in range(6):
        pauses.append(courier.step() // SECOND)
        clock.advance(pauses[-1] * SECOND)
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_a_pause_is_kept_though_the_feed_grows(make: Make, outside: Outside) -> None:
    outside.error = UnreachableError("down")
    courier = make(RowsFeed(numbers(0), end=1))
    courier.step()
    outside.error = None
    courier.step()
    assert outside.deliveries == []


def test_a_failure_shows_in_the_status_until_it_is_over(
    make: Make, outside: Outside, clock: ManualClock
) -> None:
    outside.error = UnreachableError("cannot reach s3://b")
    courier = make(RowsFeed(numbers(0, 1), end=2))
    courier.step()
    failed = courier.status
    assert (failed.failures, failed.error, failed.lag) == (1, "cannot reach s3://b", 2)
    assert failed.next_attempt == clock.now() + SECOND
    outside.error = None
    clock.advance(SECOND)
    settle(courier)
    now = courier.status
    assert (now.failures, now.error, now.lag, now.rows, now.next_attempt) == (0, None, 0, 2, None)


def test_a_defect_of_the_sink_is_named_so_and_tried_again(
    make: Make, outside: Outside, clock: ManualClock
) -> None:
    outside.error = KeyError("oops")
    courier = make(RowsFeed(numbers(0), end=1))
    courier.step()
    assert courier.status.error == "defect: KeyError('oops')"
    outside.error = None
    clock.advance(SECOND)
    settle(courier)
    assert outside.rows == [0]


def test_each_new_offset_is_told_and_the_first_one_too(make: Make) -> None:
    told: list[int] = []
    settle(make(RowsFeed(numbers(0, 1, 2), end=3), delivered=told.append))
    assert told == [0, 3]


def test_rows_that_came_during_an_outage_count_as_waiting(
    make: Make, outside: Outside, clock: ManualClock
) -> None:
    courier, feed = caught_up(make, rows=5)
    outside.error = UnreachableError("down")
    courier.step(drain=True)
    feed.reached = 8
    outside.error = None
    clock.advance(SECOND)
    settle(courier)
    assert outside.deliveries == [(0, 5), (5, 8)]


class Crashing(FolderStore):
    """A folder whose writer dies before, amid or after a delivery, as it is told."""

    def __init__(self, root: Path, deaths: list[str]) -> None:
        super().__init__(root)
        self._deaths = deaths

    def put(self, files: Iterable[File]) -> None:
        files = list(files)
        death = self._deaths.pop() if self._deaths else "none"
        written = {"before": 0, "amid": len(files) // 2}.get(death, len(files))
        super().put(files[:written])
        if death != "none":
            raise KeyboardInterrupt(death)  # nothing catches it: the courier is gone


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    growth=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    deaths=st.lists(st.sampled_from(["none", "before", "amid", "after"]), max_size=8),
    rows_max=st.integers(1, 9),
    form=st.sampled_from(["capture", "ndjson"]),
)
def test_each_row_is_there_once_however_often_the_process_dies(
    tmp_path_factory: pytest.TempPathFactory,
    growth: list[int],
    deaths: list[str],
    rows_max: int,
    form: str,
) -> None:
    folder = tmp_path_factory.mktemp("shop")
    total = sum(growth)
    rows = captured(total)
    if form == "ndjson":
        rows = rows.drop_columns(["record"])
    path = "all/{PartitionId}/{Second}" if form == "capture" else "all/{event_type}"
    how = written("blobs", form=form, path=path, partitions=2)
    layout = layout_of(how, columns=rows.column_names, id_column="id")
    sink = Objects(Crashing(folder, list(deaths)), layout)
    feed = RowsFeed(rows, end=0)
    with closing(Ledger(folder / "sinks.sqlite")) as ledger:
        for more in growth:
            feed.reached += more
            while not _run_once(sink, feed, ledger, rows_max):
                pass
    assert offsets_of(sink) == list(range(total))


def _run_once(sink: Sink, feed: RowsFeed, ledger: Ledger, rows_max: int) -> bool:
    """Run a courier until it rests, True, or dies, False."""
    courier = Courier(
        "s", sink=sink, feed=feed, ledger=ledger, pace=Pace(rows_max=rows_max),
        clock=ManualClock(), random=lambda: 0.5,
    )  # fmt: skip
    try:
        settle(courier, drain=True)
    except KeyboardInterrupt:
        return False
    assert courier.status.error is None
    return True
