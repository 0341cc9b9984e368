"""Generated store events: the same for the same seed, of each kind as often as they should be."""

import json
import time
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tidegate.testing.store import (
    CATEGORIES,
    PAYMENT_METHODS,
    SAMPLE,
    TYPES,
    UNREADABLE,
    generate,
    generate_batches,
    produce_summary,
)

START = 1_686_083_085_754_948  # 2023-06-06T20:24:45.754948


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return [json.loads(r) for r in generate(40_000, seed=7, start_time_us=START)]


def share(events: list[dict[str, Any]], **wanted: Any) -> float:
    hits = sum(all(e.get(k) == v for k, v in wanted.items()) for e in events)
    return hits / len(events)


def near(expected: float) -> Any:
    return pytest.approx(expected, abs=0.01)


def test_events_have_the_fields_of_the_printed_sample_in_its_order(
    events: list[dict[str, Any]],
) -> None:
    sample = json.loads(SAMPLE.replace(b'"is_return": ', b'"is_return": false'))
    whole = next(e for e in events if "bad_msg" not in e)
    assert list(whole) == list(sample)
    assert {k: type(v) for k, v in whole.items()} == {k: type(v) for k, v in sample.items()}


def test_the_printed_sample_is_not_json() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(SAMPLE)
    assert SAMPLE.endswith(b'"is_return": \n}')


def test_types_flags_and_faults_come_as_often_as_they_should(events: list[dict[str, Any]]) -> None:
    assert share(events, event_type="sale_event") == near(0.8)
    assert share(events, gift_wrap=True) == near(0.3)
    assert share(events, priority_shipping=True) == near(0.3)
    assert share(events, variant="red") == near(0.5)
    assert share(events, bad_msg=True) == near(0.1)
    assert share(events, event_type="sale_event", is_return=True) == 0
    assert share(events, event_type="inventory_event", is_return=True) == near(0.1)


def test_a_faulty_store_leaves_its_name_out_and_marks_the_event(
    events: list[dict[str, Any]],
) -> None:
    assert all(("store_id" in e) != ("bad_msg" in e) for e in events)


def test_suspicious_sales_are_as_common_as_the_rules_of_chance_say(
    events: list[dict[str, Any]],
) -> None:
    hits = [
        e for e in events
        if e["event_type"] == "sale_event" and e["discount"] > 50 and e["priority_shipping"]
    ]  # fmt: skip
    assert len(hits) / len(events) == near(0.8 * 0.3 * 25 / 76)


def test_values_fill_their_ranges_evenly(events: list[dict[str, Any]]) -> None:
    def seen(key: str) -> list[Any]:
        return sorted({e[key] for e in events if key in e})

    assert seen("store_id") == list(range(1, 11))
    assert seen("cust_id") == list(range(100, 1000))
    assert seen("qty") == list(range(1, 100))
    assert seen("discount") == list(range(76))
    assert seen("category") == sorted(CATEGORIES)
    assert seen("payment_method") == sorted(PAYMENT_METHODS)
    assert 18_981 <= seen("sku")[0] < 19_100
    assert 189_200 < seen("sku")[-1] <= 189_281
    assert seen("price")[0] < 0.1
    assert 99.9 < seen("price")[-1] <= 100
    assert all(round(p, 2) == p for p in seen("price"))
    counts = Counter(e["category"] for e in events)
    assert min(counts.values()) > 0.85 * max(counts.values())


def test_ids_are_unique_random_uuids(events: list[dict[str, Any]]) -> None:
    assert len({e["id"] for e in events}) == len(events)
    assert all(e["id"][14] == "4" and e["id"][19] in "89ab" for e in events)


def times(records: list[bytes]) -> list[datetime]:
    return [datetime.fromisoformat(json.loads(r)["ts"]) for r in records]


def test_times_ascend_from_the_start_at_the_rate() -> None:
    records = list(generate(9000, seed=1, start_time_us=START, rate_per_second=50))
    found = times(records)
    assert found[0].isoformat() == "2023-06-06T20:24:45.754948"
    assert {b - a for a, b in pairwise(found)} == {timedelta(milliseconds=20)}


def test_shuffled_times_are_never_later_than_was_asked() -> None:
    records = list(generate(2000, seed=1, start_time_us=0, rate_per_second=10, shuffle_seconds=60))
    latest, behind = datetime.min, timedelta()  # noqa: DTZ901 - event times have no zone
    for moment in times(records):
        behind = max(behind, latest - moment) if latest > moment else behind
        latest = max(latest, moment)
    assert timedelta(seconds=40) < behind <= timedelta(seconds=60)


FAULTS: dict[str, Any] = {"unreadable_share": 0.1, "duplicate_share": 0.05, "shuffle_seconds": 9}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    one, again = (list(generate(9000, seed=3, start_time_us=0, **FAULTS)) for _ in range(2))
    assert one == again
    assert one != list(generate(9000, seed=4, start_time_us=0, **FAULTS))


def test_fewer_records_are_the_beginning_of_more() -> None:
    many = list(generate(9000, seed=3, start_time_us=0, **FAULTS))
    assert list(generate(8500, seed=3, start_time_us=0, **FAULTS)) == many[:8500]
    assert list(generate(0, seed=3, start_time_us=0)) == []


def test_blocks_hold_the_same_records_a_line_each() -> None:
    blocks = list(generate_batches(9000, seed=3, start_time_us=0, batch_records=400, **FAULTS))
    assert [b.count(b"\n") for b in blocks] == [400] * 22 + [200]
    records = list(generate(9000, seed=3, start_time_us=0, **FAULTS))
    assert b"".join(blocks) == b"".join(r + b"\n" for r in records)


def test_duplicates_repeat_an_earlier_record_to_the_byte() -> None:
    records = list(generate(20_000, seed=5, start_time_us=0, duplicate_share=0.05))
    distinct = set(records)
    assert len(distinct) == len({json.loads(r)["id"] for r in distinct})
    assert (len(records) - len(distinct)) / len(records) == near(0.05)


def test_unreadable_records_come_in_every_way_and_as_often_as_asked() -> None:
    whole = list(generate(5000, seed=5, start_time_us=0))
    broken = list(generate(5000, seed=5, start_time_us=0, unreadable_share=0.1))
    changed = [(a, b) for a, b in zip(whole, broken, strict=True) if a != b]
    assert len(changed) / len(whole) == near(0.1)
    ways = {
        name
        for name, spoil in UNREADABLE.items()
        for a, b in changed
        if spoil(a.decode()).encode("utf-8", "surrogateescape") == b
    }
    assert ways == set(UNREADABLE)


@pytest.mark.parametrize("way", UNREADABLE)
def test_each_way_breaks_a_record_and_keeps_it_on_one_line(way: str) -> None:
    [record] = generate(1, seed=1, start_time_us=START)
    broken = UNREADABLE[way](record.decode()).encode("utf-8", "surrogateescape")
    assert broken.strip()
    assert b"\n" not in broken
    assert produce_summary([broken])["bad_msgs"] == 1
    assert produce_summary([broken])["tot_sales"] == 0


def test_the_summary_counts_as_the_producer_answers() -> None:
    records = list(generate(1000, seed=2, start_time_us=0))
    found = [json.loads(r) for r in records]
    summary = produce_summary(records)
    assert list(summary) == ["tot_msgs", "bad_msgs", "sale_evnts", "inventory_evnts", "tot_sales"]
    assert summary["tot_msgs"] == 1000
    assert summary["bad_msgs"] == sum("bad_msg" in e for e in found)
    assert summary["sale_evnts"] + summary["inventory_evnts"] == 1000
    assert summary["sale_evnts"] == sum(e["event_type"] == TYPES[0] for e in found)
    assert summary["tot_sales"] == pytest.approx(
        sum(e["price"] * e["qty"] for e in found), abs=0.01
    )


def test_the_summary_of_nothing_is_nothing() -> None:
    assert set(produce_summary([]).values()) == {0}


def test_generation_keeps_up_with_a_fast_reader() -> None:
    begin = time.process_time()
    made = sum(len(b) for b in generate_batches(100_000, seed=1, start_time_us=0))
    assert made > 100_000 * 380
    # Some 0.1 s on an idle machine; the bound leaves room for slow ones.
    assert time.process_time() - begin < 1.0
