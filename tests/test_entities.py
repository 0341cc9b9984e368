"""The features of an entity are what a state that saw the whole stream would give."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tidegate
from payments import FEATURES, WINDOWS, bits, encoded, payments, table, write
from tidegate import past
from tidegate.errors import InputError, RequestError
from tidegate.features.state import FeatureState
from tidegate.program import Program
from tidegate.workspace import Workspace

SELECTS = {
    "plain": FEATURES,
    "several": f"""SELECT count(*) OVER card_1h AS by_card, count(*) OVER shop_2h AS by_shop,
        sum(amount) OVER (PARTITION BY card, shop ORDER BY at RANGE BETWEEN INTERVAL 3 HOURS
          PRECEDING AND CURRENT ROW) AS by_both FROM events {WINDOWS}""",
    "in layers": f"""SELECT avg(risk) OVER shop_2h AS shop_risk,
        max(shop_risk) OVER card_1h AS riskiest, count(*) OVER card_1h AS n
        FROM events {WINDOWS}""",
    "by what is made of a column": """SELECT count(*) OVER (PARTITION BY lower(card) ORDER BY at
        RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW) AS n FROM events""",
    "of the whole stream": f"""SELECT count(*) OVER card_1h AS n, count(*) OVER (ORDER BY at
        RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW) AS all_1h FROM events {WINDOWS}""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entities") / "shop"
    write(folder)
    (folder / "day.ndjson").write_bytes(b"\n".join(encoded(payments(900))))
    tidegate.open(folder).ingest([folder / "day.ndjson"])
    return folder


@pytest.fixture
def shop(folder: Path) -> Workspace:
    return tidegate.open(write(folder).root)


def by_all(shop: Workspace, entity: dict[str, object]) -> dict[str, object]:
    """What a state that took in every event gives."""
    program = Program.compile(shop.project)
    assert program.features is not None
    state = FeatureState(program.features, key=bytes(16))
    (batch,) = table(shop.project, "events").combine_chunks().to_batches()
    newest = np.maximum.accumulate(batch["at"].cast(pa.int64()).to_numpy())
    state.update(batch, newest=newest)
    now = int(newest[-1])
    (row,) = state.peek(entity, time=now, newest=now).values.to_pylist()
    return dict(row)


@pytest.mark.parametrize("select", SELECTS.values(), ids=SELECTS)
@pytest.mark.parametrize(
    "entity", [{"card": "c2"}, {"card": None}, {"card": "c1", "shop": 2}, {"card": "new"}], ids=str
)
def test_an_entity_has_the_values_of_the_whole_stream(
    folder: Path, monkeypatch: pytest.MonkeyPatch, select: str, entity: dict[str, object]
) -> None:
    monkeypatch.setattr(past, "ROWS", random.choice([100, 1_000]))
    shop = tidegate.open(write(folder, features=select, rules="").root)
    (found,) = shop.entity(entity).to_pylist()
    assert {k: v for k, v in found.items() if k not in ("entity", "as_of")} == by_all(shop, entity)


def test_entities_are_written_as_on_the_command_line(shop: Workspace) -> None:
    written = shop.entity("card=c2", "card=c1,shop=2", "shop=3", "card")
    given = shop.entity({"card": "c2"}, {"card": "c1", "shop": 2}, {"shop": 3}, {"card": None})
    assert bits(written) == bits(given)
    assert written["entity"].to_pylist() == ["card=c2", "card=c1,shop=2", "shop=3", "card"]
    assert written["shop_risk"].null_count == 2  # a card alone has no shop's features
    newest = shop.query('SELECT max("at") AS newest FROM events').arrow()["newest"].to_pylist()
    assert written["as_of"].to_pylist() == newest * 4


@pytest.mark.parametrize(
    ("entity", "said"),
    [
        ("crd=c1", "no column `crd`; did you mean `card`"),
        ("shop=first", "`shop` is bigint, and `first` is not"),
        ("amount=1", "no windows are kept by `amount`"),
    ],
)
def test_an_entity_that_there_cannot_be_is_refused(shop: Workspace, entity: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        shop.entity(entity)


def test_without_features_or_events_it_is_said(tmp_path: Path) -> None:
    plain = tidegate.open(write(tmp_path / "plain", features=None, rules="").root)
    with pytest.raises(InputError, match="has no tables yet"):
        plain.entity("card=c1")
    with pytest.raises(InputError, match=r"no `\[features\]`"):
        plain.explain()


def test_the_plan_tells_what_is_kept_and_what_is_shared(shop: Workspace) -> None:
    kept, shared = shop.explain()
    assert kept["entity"].to_pylist() == ["card", "shop"]
    assert kept["functions"].to_pylist() == [3, 1]
    # 32 bytes at most, and 8 for each value.
    assert set(kept["bytes an event"].to_pylist()) <= set(range(8, 32 + 8 * 2 + 1))
    assert kept["reach in days"].to_pylist() == [0.041667, 0.083333]  # one hour and two
    assert dict(zip(*(c.to_pylist() for c in shared.columns), strict=True)) == {
        "count(*) over (card range 1 h to 0)": "payments_1h",
        "sum(amount) over (card range 1 h to 0)": "spent_1h",
        'sum(("weight" * "weight")) over (card range 1 h to 0)': "squares",
        "avg(risk) over (shop range 2 h to 1 min)": "shop_risk",
    }
