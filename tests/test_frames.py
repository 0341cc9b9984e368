"""Events given as columns or rows are taken as a stream declares them, or refused by name."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import tidegate
from payments import bits, encoded, payments, table, write
from tidegate.errors import InputError
from tidegate.frames import declared_columns
from tidegate.program import Program
from tidegate.workspace import Workspace

ROWS = payments(500)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("frames") / "shop"
    project = write(folder)
    (folder / "day.ndjson").write_bytes(b"\n".join(encoded(ROWS)))
    tidegate.open(folder).ingest([folder / "day.ndjson"])
    return Workspace(project)


FORMS: dict[str, Callable[[pa.Table], Any]] = {
    "an Arrow table": lambda t: t,
    "an Arrow batch": lambda t: t.combine_chunks().to_batches()[0],
    "a Polars frame": lambda t: pl.from_arrow(t),
    "a pandas frame": lambda t: t.to_pandas(types_mapper=pd.ArrowDtype),
    "a list of dicts": lambda t: ROWS,
    "times with a zone": lambda t: t.set_column(
        1, "at", t["at"].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("ns", "Asia/Tokyo"))
    ),
    "a text that repeats": lambda t: t.set_column(2, "card", t["card"].dictionary_encode()),
    "smaller numbers": lambda t: t.set_column(3, "shop", t["shop"].cast(pa.int8())),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_features_of_events_at_hand_are_those_of_the_running_stream(
    shop: Workspace, form: Callable[[pa.Table], Any]
) -> None:
    wanted = table(shop.project, "features").drop_columns(["log_offset"])
    events = table(shop.project, "events").drop_columns(["log_offset", "ingest_time", "source"])
    found = shop.features(form(events))
    assert found.schema.names == wanted.schema.names
    assert bits(found) == bits(wanted)


def test_no_events_have_no_features(shop: Workspace) -> None:
    names = table(shop.project, "features").column_names[:-1]
    empty: list[Any] = [[], Program.compile(shop.project).schema.arrow.empty_table()]
    for nothing in empty:
        assert shop.features(nothing).column_names == names
        assert shop.features(nothing).num_rows == 0


def of(shop: Workspace, events: Any) -> pa.Table:
    return declared_columns(events, Program.compile(shop.project))


def test_a_column_that_may_be_missing_is_null(shop: Workspace) -> None:
    found = of(shop, pa.table({"id": ["a"], "at": ["2023-06-07 12:00"], "shop": [1], "more": [2]}))
    assert found.column_names == ["id", "at", "card", "shop", "amount", "risk", "weight"]
    assert found["card"].to_pylist() == [None]


def test_decimals_keep_their_digits(shop: Workspace) -> None:
    rows = [{"id": "a", "at": "2023-06-07", "shop": 1, "amount": Decimal("1.10")}]
    assert of(shop, rows)["amount"].to_pylist() == [Decimal("1.10")]


WRONG: list[tuple[Any, str]] = [
    (pa.table({"id": ["a"], "at": ["2023-06-07"]}), "no column `shop`, bigint is expected"),
    (pa.table({"id": ["a"], "at": ["soon"], "shop": [1]}), "`at` holds string and is declared as"),
    (pa.table({"id": ["a"], "at": ["2023-06-07"], "shop": [1.5]}), "`shop` holds double"),
    (pa.table({"id": ["a", None], "at": ["2023-06-07"] * 2, "shop": [1, 2]}), "row 1 has no `id`"),
    ([{"id": "a", "at": "2023-06-07", "shop": 1}, {"id": "b"}], "row 1 is no event"),
    ([{"id": "a", "at": "2023-06-07", "shop": "first"}], "row 0 is no event.*`shop`"),
    ("events.csv", "not as str"),
    (7, "not as int"),
]


@pytest.mark.parametrize(("events", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_no_event_is_refused_by_row_or_column(
    shop: Workspace, events: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        of(shop, events)


def test_a_project_without_features_says_so(tmp_path: Path) -> None:
    plain = Workspace(write(tmp_path / "plain", features=None, rules=""))
    empty: Sequence[Any] = []
    with pytest.raises(InputError, match=r"no `\[features\]`"):
        plain.features(empty)
