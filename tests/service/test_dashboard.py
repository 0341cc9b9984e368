"""The dashboard and the alarms ask for what /metrics has, by the labels that it has."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from waiting import PATIENCE_SECONDS

from .process import end, event, launch

EXAMPLES = Path(__file__).parents[2] / "examples"
DASHBOARD = EXAMPLES / "grafana" / "tidegate.json"
ALARMS = EXAMPLES / "prometheus" / "tidegate.rules.yml"
SETTINGS = """
[features]
sql = "features.sql"
[[windows]]
name = "by_type"
sql = "by_type.sql"
[sinks.copies]
type = "objects"
from = "events"
url = "copies"
format = "ndjson"
path = "{yyyy-MM-dd}"
"""
FEATURES = """
SELECT count(*) OVER w AS seen FROM events
WINDOW w AS (PARTITION BY event_type ORDER BY ts
  RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW)
"""
BY_TYPE = """
SELECT event_type, count(*) AS n FROM events
GROUP BY event_type, TUMBLE(ts, INTERVAL 1 MINUTE)
"""
# What Prometheus adds to every sample, and the ends of the buckets.
OF_PROMETHEUS = {"instance", "job", "le"}
SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
    "gauge": ("",),
}

Exported = dict[str, set[str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """The names of all samples that a server with a bit of everything has, and their labels."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "features.sql").write_text(FEATURES)
    (folder / "by_type.sql").write_text(BY_TYPE)
    server = launch(folder, settings=SETTINGS)
    with server.client() as client:
        client.post("/v1/events", content=event("e1", discount=60))
        client.post("/v1/events", content=event("e1", discount=60))
        client.post("/v1/events", content=b"no event")
        client.post("/v1/query", json={"sql": "SELECT 1"})
        until = time.monotonic() + 2 * PATIENCE_SECONDS
        while "tidegate_snapshot_bytes" not in (found := names(client)):
            assert time.monotonic() < until, found
            time.sleep(0.5)
    yield found
    end(server)


def names(client: httpx.Client) -> Exported:
    found: Exported = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for suffix in SUFFIXES[family.type]:
            labels = {label for sample in family.samples for label in sample.labels}
            found.setdefault(family.name + suffix, set()).update(labels)
    return found


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = [t["expr"] for panel in panels for t in panel.get("targets", ())]
    alarms = re.findall(r"^ +expr: (.+)$", ALARMS.read_text(), re.MULTILINE)
    return [*shown, *alarms]


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_names_samples_and_labels_that_are_exported(
    exported: Exported, expression: str
) -> None:
    asked = set(re.findall(r"\b(?:tidegate|process)_\w+\b", expression))
    assert asked
    assert asked <= exported.keys()
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        labels |= {name.strip() for name in group.split(",")}
    known = OF_PROMETHEUS.union(*(exported[name] for name in asked))
    assert labels <= known


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {each["name"] for each in board["templating"]["list"]}
    asked = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panels)))
    assert asked - {"__rate_interval"} <= variables
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells


def test_every_stage_and_lag_that_is_exported_is_on_the_dashboard(exported: Exported) -> None:
    text = DASHBOARD.read_text()
    wanted = {n for n in exported if "lag" in n or "pending" in n or "queued" in n}
    assert wanted
    # How far a start would have to go is on the board by its age.
    assert {n for n in wanted if n not in text} == set()
