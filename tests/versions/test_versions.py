"""Versions published, taken back and turned down while the project runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tidegate
from payments import FEATURES, MORE_FEATURES, RULES, encoded, payments, table, write
from shops import copy_while_running
from tidegate.controls import ProposalRecord
from tidegate.errors import InputError, ProjectError, RequestError
from tidegate.pipeline import Pipeline
from tidegate.project.project import Project, load, version
from tidegate.records import Records
from tidegate.versions import Versions
from waiting import PATIENCE_SECONDS, until

STREAM = payments(4_000)
STRICTER = RULES.replace("0.55", "0.5")
WINDOW = (
    "SELECT shop, count(*) AS payments FROM events GROUP BY shop, TUMBLE(at, INTERVAL '1 hour')"
)


@contextmanager
def running(project: Project) -> Iterator[Pipeline]:
    pipeline = Pipeline(project).open(rebuild_beside=True)
    try:
        yield pipeline
    finally:
        pipeline.close()


@contextmanager
def traffic(pipeline: Pipeline, first: int = 0) -> Iterator[None]:
    """Payments go in, a few at a time, for as long as the block takes."""
    over = threading.Event()

    def send_all() -> None:
        for place in range(first, len(STREAM), 7):
            if over.wait(0.002):
                return
            send(pipeline, place, place + 7)

    thread = threading.Thread(target=send_all)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def send(pipeline: Pipeline, first: int, until_: int) -> None:
    pipeline.door.submit(Records.of(encoded(STREAM[first:until_])), source="test")


def desk(pipeline: Pipeline, folder: Path) -> Versions:
    """As the command line in another process has it, but for the pipeline."""
    return Versions(load(folder), pipeline=pipeline)


def verified(folder: Path) -> None:
    shop = tidegate.open(folder)
    assert (found := shop.verify()).equal, found.differences
    assert (whole := shop.reconcile()).equal, whole


def with_window(folder: Path) -> None:
    settings = folder / "tidegate.toml"
    text = settings.read_text().replace('shop = "bigint"', 'shop = "bigint"\nchannel = "text?"')
    settings.write_text(text + '[[windows]]\nname = "hourly"\nsql = "hourly.sql"\n')
    (folder / "hourly.sql").write_text(WINDOW)


def test_the_stream_switches_at_the_offset_that_is_told(tmp_path: Path) -> None:
    """With new rules, features, a window query and a column, while payments come in."""
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        send(pipeline, 0, 1_000)
        old = pipeline.engine.program.version
        write(folder, features=MORE_FEATURES, rules=STRICTER)
        with_window(folder)
        with traffic(pipeline, 1_000):
            found = desk(pipeline, folder).publish(message="stricter", author="ann")
            assert pipeline.engine.program.version == found.version
        send(pipeline, 3_500, 4_000)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
    assert found.before == old
    assert found.offset is not None
    for row in table(load(folder), "decisions").to_pylist():
        assert row["version"] == (found.version if row["log_offset"] > found.offset else old)
    shop = tidegate.open(folder)
    assert shop.query("SELECT sum(payments) AS n FROM hourly").arrow()["n"][0].as_py()
    newest = shop.versions.all()[-1]
    assert (newest.version, newest.change, newest.author, newest.message) == (
        (found.version, "publish", "ann", "stricter")
    )
    audit = shop.query("SELECT action, subject, author FROM audit ORDER BY log_offset").arrow()
    assert audit.to_pylist()[-1] == {
        "action": "version.publish", "subject": found.version, "author": "ann"
    }  # fmt: skip
    verified(folder)


def test_a_rollback_stays_over_a_restart_until_the_folder_says_something_new(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        first = pipeline.engine.program.version
        send(pipeline, 0, 500)
        write(folder, features=MORE_FEATURES, rules=STRICTER)
        with_window(folder)
        second = desk(pipeline, folder).publish().version
        send(pipeline, 500, 1_000)
    with running(load(folder)) as pipeline:
        assert pipeline.engine.program.version == second
        back = desk(pipeline, folder).rollback(author="ann")
        assert (back.version, back.before) == (first, second)
        send(pipeline, 1_000, 1_500)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        copy_while_running(pipeline, tmp_path / "crashed")
    for place in (folder, tmp_path / "crashed"):
        with running(load(place)) as pipeline:
            assert pipeline.engine.program.version == first
            send(pipeline, 1_500, 2_000)
        write(place, rules=STRICTER.replace("payments_1h > 4", "payments_1h > 5"))
        with running(load(place)) as pipeline:
            assert pipeline.engine.program.version not in (first, second)
            send(pipeline, 2_000, 2_100)
        verified(place)


def test_going_back_again_goes_further_back(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    names = []
    with running(write(folder)) as pipeline:
        names.append(pipeline.engine.program.version)
        for limit in ("0.6", "0.65"):
            write(folder, rules=RULES.replace("0.55", limit))
            names.append(desk(pipeline, folder).publish().version)
        at_work = desk(pipeline, folder)
        assert at_work.rollback().version == names[1]
        assert at_work.rollback().version == names[0]
        with pytest.raises(RequestError, match="no version before"):
            at_work.rollback()
        assert at_work.rollback(names[2][:6]).version == names[2]
        assert at_work.rollback().version == names[0]
        with pytest.raises(RequestError, match="no version `beef`"):
            at_work.rollback("beef")
        with pytest.raises(RequestError, match="runs already"):
            at_work.rollback(names[0])


def test_without_a_server_publishing_runs_the_project_for_a_moment(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        send(pipeline, 0, 500)
    write(folder, features=MORE_FEATURES)
    shop = tidegate.open(folder)
    found = shop.versions.publish(message="more")
    assert [v.change for v in shop.versions.all()] == ["start", "publish"]
    with running(load(folder)) as pipeline:
        assert pipeline.engine.program.version == found.version
        send(pipeline, 500, 600)
    assert [v.change for v in shop.versions.all()] == ["start", "publish"]
    verified(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('id = "id"', 'id = "card"', r"tidegate.toml:\d+:\d+: .*cannot be missing"),
        ('event_time = "at"', 'event_time = "at"\ndedupe_horizon = "1 day"', r"`dedupe_horizon`"),
        ('weight = "bigint?"', 'weight = "text?"', r"tidegate.toml:\d+:\d+: .*`weight`"),
        ('risk = "double?"', 'risk = "text?"', r"tidegate.toml:\d+:\d+: .*"),
    ],
)
def test_what_cannot_take_over_is_refused_with_its_place_and_nothing_is_logged(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        send(pipeline, 0, 10)
        end = pipeline.log.next_offset
        files = {p.name: p.read_text() for p in folder.glob("*.*")}
        assert old in files["tidegate.toml"]
        files["tidegate.toml"] = files["tidegate.toml"].replace(old, new)
        files["features.sql"] = (
            "SELECT count(*) OVER (PARTITION BY shop ORDER BY at "
            "RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW) AS payments_1h FROM events"
        )
        files["rules.toml"] = ""
        with pytest.raises(ProjectError, match=said):
            desk(pipeline, folder).publish(files=files)
        assert pipeline.log.next_offset == end


def test_a_proposal_that_cannot_be_compiled_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        files = dict(pipeline.program.files) | {"rules.toml": "[[rule]]\nname = 'x'\n"}
        record = ProposalRecord("abc", files, "publish", "eve", "", pipeline.program.version)
        offset = pipeline.append([record], source="test")
        until(lambda: pipeline.engine.proposal is None and pipeline.decided > offset + 1)
        send(pipeline, 0, 100)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        assert pipeline.failure is None
    rows = tidegate.open(folder).query("SELECT * FROM audit ORDER BY log_offset").arrow()
    (refused,) = [r for r in rows.to_pylist() if r["action"] == "version.refused"]
    assert (refused["subject"], refused["author"]) == ("abc", "eve")
    assert "`when` is missing" in refused["detail"]
    verified(folder)


def test_a_proposal_that_a_crash_left_behind_is_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        send(pipeline, 0, 300)
        own = pipeline.program
        pipeline.succession.stop()  # as if the process had died before it was ready
        files = dict(own.files) | {"rules.toml": STRICTER}
        record = ProposalRecord("to come", files, "publish", "ann", "", own.version)
        pipeline.append([record], source="test")
        send(pipeline, 300, 400)
    with running(load(folder)) as pipeline:
        until(lambda: pipeline.engine.program.files["rules.toml"] == STRICTER)
        send(pipeline, 400, 500)
    verified(folder)


def test_a_newer_publication_takes_the_place_of_one_that_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, free, read = tmp_path / "shop", threading.Event(), Pipeline._history

    def waiting(self: Pipeline, stopped: threading.Event, *rest: object) -> Iterator[object]:
        while stopped is not self._stopping and not (free.wait(0.01) or stopped.is_set()):
            pass
        yield from read(self, stopped, *rest)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(Pipeline, "_history", waiting)
    monkeypatch.setattr("tidegate.succession.NEAR_RECORDS", 50)
    with running(write(folder)) as pipeline:
        send(pipeline, 0, 500)
        until(lambda: pipeline.backlog == 0)
        write(folder, features=MORE_FEATURES)
        first = desk(pipeline, folder)
        said: list[BaseException] = []

        def publish() -> None:
            try:
                first.publish()
            except BaseException as error:  # noqa: BLE001 - looked at below
                said.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        until(lambda: pipeline.succession.version is not None)
        found = desk(pipeline, write(folder, rules=STRICTER).root).publish()
        thread.join()
        free.set()
        assert pipeline.engine.program.version == found.version
    assert [str(e) for e in said if isinstance(e, RequestError)]
    assert "gave way" in str(said[0])
    assert [v.change for v in tidegate.open(folder).versions.all()] == ["start", "publish"]
    verified(folder)


def test_a_publication_that_takes_too_long_is_told_so_and_comes_to_pass_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        go_on, wait = threading.Event(), Pipeline.append
        monkeypatch.setattr(
            pipeline.succession,
            "_append",
            lambda record, *, source: (go_on.wait(), wait(pipeline, [record], source=source))[1],
        )
        write(folder, rules=STRICTER)
        found = desk(pipeline, folder).publish(timeout_seconds=0.2)
        assert found.offset is None
        go_on.set()
        until(lambda: pipeline.engine.program.version == found.version)


# -- in the shadow ---------------------------------------------------------------------------------

CANDIDATE = (
    RULES.replace("payments_1h > 4", "payments_1h > 2")
    + """
[[rule]]
name = "risky"
when = "riskiest > 0.98"
action = "block"
reason = "a risk of {riskiest} on this card"
"""
)


def test_a_candidate_in_the_shadow_changes_nothing_and_its_effect_is_counted(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        old = pipeline.engine.program
        send(pipeline, 0, 500)
        write(folder, features=MORE_FEATURES, rules=CANDIDATE)
        found = desk(pipeline, folder).publish(shadow=True)
        assert found.shadows == ("busy", "risky")
        send(pipeline, 500, 2_000)
        assert pipeline.drain(timeout_seconds=PATIENCE_SECONDS)
        effects = {e.rule: e for e in desk(pipeline, folder).effects()}
    with running(load(folder)) as pipeline:  # the shadow survives a restart
        assert pipeline.engine.program.version == found.version
    verified(folder)
    assert {r.name for r in old.rules.rules} == {"busy", "risky_shop"}
    rows = [r for r in table(load(folder), "decisions").to_pylist() if r["log_offset"] > 501]
    assert len(rows) == 1_500
    for name in ("busy", "risky"):
        hit, changed = 0, 0
        for row in rows:
            hits = {(h["name"], h["mode"]): h["action"] for h in row["rules"]}
            hit += (name, "shadow") in hits
            live = {n: a for (n, m), a in hits.items() if m == "live" and n != name}
            wanted = [*live.values(), *([hits[name, "shadow"]] if (name, "shadow") in hits else [])]
            rank = max((("approve", "review", "block").index(a) for a in wanted), default=0)
            changed += ("approve", "review", "block")[rank] != row["action"]
        assert (effects[name].events, effects[name].hit, effects[name].changed) == (
            (1_500, hit, changed)
        )
        assert hit
    assert sum(e.changed for e in effects.values())
    assert effects["busy"].replaces
    assert not effects["risky"].replaces


def test_publishing_again_in_the_shadow_begins_from_what_decides(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        write(folder, features=MORE_FEATURES, rules=CANDIDATE)
        desk(pipeline, folder).publish(shadow=True)
        write(folder, rules=STRICTER)
        found = desk(pipeline, folder).publish(shadow=True)
        assert found.shadows == ("risky_shop",)
        modes = {(r.name, r.mode) for r in pipeline.engine.program.project.rules}
        assert modes == {("busy", "live"), ("risky_shop", "live"), ("risky_shop", "shadow")}
        assert desk(pipeline, folder).publish().change == "publish"
        assert pipeline.engine.program.version == version(load(folder))


def test_features_that_the_candidate_leaves_out_are_kept_and_new_ones_added(
    tmp_path: Path,
) -> None:
    """Windows of one name that mean different things do not get into each other's way."""
    folder = tmp_path / "shop"
    other = FEATURES.replace("INTERVAL 1 HOUR", "INTERVAL 2 HOURS").split("SELECT")[1]
    other = "SELECT count(*) OVER card_1h AS payments_2h FROM" + other.split("FROM")[1]
    rules = '[[rule]]\nname="two"\nwhen="payments_2h > 6"\naction="review"\nreason="x"\n'
    with running(write(folder)) as pipeline:
        send(pipeline, 0, 500)
        write(folder, features=other, rules=rules)
        found = desk(pipeline, folder).publish(shadow=True)
        assert any("`busy` would go" in r for r in found.remarks)
        send(pipeline, 500, 1_000)
    columns = table(load(folder), "features").column_names
    assert {"payments_1h", "squares", "payments_2h"} <= set(columns)
    verified(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("features.sql", "count(*) OVER card_1h", "count(*) OVER shop_2h",
         r"features.sql:2:\d+: feature `payments_1h` is in use"),
        ("tidegate.toml", 'lateness = "10 minutes"', 'lateness = "20 minutes"', "`lateness`"),
        ("tidegate.toml", 'weight = "bigint?"', 'weight = "double?"', "column `weight` changes"),
    ],
)  # fmt: skip
def test_what_would_change_decisions_is_refused_in_the_shadow(
    tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        (folder / "rules.toml").write_text(CANDIDATE.partition('[[rule]]\nname = "risky"\n')[0])
        with pytest.raises(ProjectError, match=said):
            desk(pipeline, folder).publish(shadow=True)


def test_a_shadow_without_anything_new_is_no_publication(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline, pytest.raises(RequestError, match="nothing to try"):
        desk(pipeline, folder).publish(shadow=True)


# -- differences -----------------------------------------------------------------------------------


def test_what_differs_is_told_by_rule_feature_and_setting(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    with running(write(folder)) as pipeline:
        write(folder, features=MORE_FEATURES, rules=CANDIDATE)
        text = "\n".join(map(str, desk(pipeline, folder).diff()))
        first = pipeline.engine.program.version
        assert desk(pipeline, folder).diff(first, first) == []
    assert "rule busy: changed\n  - when = payments_1h > 4 AND spent_1h > 100" in text
    assert "  + when = payments_1h > 2 AND spent_1h > 100" in text
    assert "rule risky: added" in text
    assert "feature riskiest: added\n  + MAX(risk)" in text.replace("max(", "MAX(")
    assert "feature payments_1h" not in text


def test_errors_name_the_version_that_is_not_there(tmp_path: Path) -> None:
    shop = tidegate.open(write(tmp_path / "shop").root)
    with pytest.raises(InputError, match="no version is known yet"):
        shop.versions.diff()
