"""What whoever reads a backtest must know besides its figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tidegate.backtest.check import Checked
from tidegate.backtest.history import Piece, Stored
from tidegate.backtest.labels import NoLabels
from tidegate.backtest.study import Study
from tidegate.errors import ProjectError
from tidegate.project.project import Project
from tidegate.project.tokens import tokens

_AGAIN = "`--replay` computes features anew"


def of_labels(study: Study, unlabelled: int, events: int) -> Iterator[str]:
    """What is not known of events."""
    if isinstance(study.labels, NoLabels):
        yield "there are no labels: name a column with `--label-column`, or send labels"
    elif unlabelled:
        yield f"{unlabelled} of {events} events are unlabelled; precision and recall leave them out"


def of_check(study: Study, checked: Checked) -> Iterator[str]:
    """Whether the current side answers as it did when it decided."""
    version = study.current.version
    if not checked.compared:
        yield f"no decision of version {version} is stored to check the current rules by"
    elif checked.differing:
        yield (
            f"{checked.differing} of {checked.compared} stored decisions of version {version} "
            f"differ from what its rules say of the stored features, the first at offset "
            f"{checked.first}: `tidegate verify` says more"
        )


def of_features(lacking: Mapping[str, int], without: int) -> Iterator[str]:
    """Features that were not stored for all events."""
    if without:
        yield f"{without} events have no stored features, which count as null: {_AGAIN}"
    for name, count in lacking.items():
        yield f"feature `{name}` was not stored for {count} events and counts as null: {_AGAIN}"


def of_versions(study: Study, tables: Path, versions: Mapping[str, int]) -> Iterator[str]:
    """Events whose stored features are those of another features.sql."""
    path = tables / "versions"
    if study.stored is None or not (path / "_delta_log").is_dir():
        return
    own = _meaning(study.current.project)
    others = {v for v, meaning in _meanings(path) if meaning != own}
    count = sum(n for version, n in versions.items() if version in others)
    if count and study.stored.name == "features":
        yield f"{count} events have features of another features.sql: {_AGAIN}"


def _meanings(path: Path) -> Iterator[tuple[str, object]]:
    """Each version that there was, with the meaning of its features."""
    stored = Stored(path)
    whole = Piece(tuple(stored.days(None, None)), 0, 2**63 - 1, 0)
    rows, _ = stored.read(whole, ["version", "files"])
    for row in rows.select(["version", "files"]).to_pylist():
        try:
            project = Project.from_files(json.loads(row["files"]), root=Path())
        except ProjectError:
            continue  # written by a later or an earlier form of the settings
        yield row["version"], _meaning(project)


def _meaning(project: Project) -> object:
    features = project.features
    if features is None:
        return None
    return tokens(features.sql.text), features.lateness_us, features.look_back_us
