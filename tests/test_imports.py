"""Imports point one way: a stage imports earlier stages and the base, never a later one."""

import ast
from pathlib import Path

import tidegate

ROOT = Path(tidegate.__file__).parent

# The journey, in order. Parts on one line do not import each other.
ORDER = [
    ["errors", "clock", "schema", "records", "ids", "memory", "together", "batches", "rows", "wal"],
    ["hiding", "pseudonyms", "stages"],
    ["tables", "sinks.contract"],
    ["controls"],
    ["proposals"],
    ["sql.source"],
    ["project"],
    ["events"],
    ["labels"],
    ["eventlog"],
    ["sql"],
    ["lists"],
    ["features"],
    ["rules", "windows"],
    ["decisions"],
    ["outcome"],
    ["program"],
    ["arrived"],
    ["evaluator"],
    ["engine"],
    ["sinks"],
    ["warehouse"],
    ["past"],
    ["snapshots", "datafolder", "lookup", "counters"],
    ["access"],
    ["accepted"],
    ["labelling"],
    ["door", "writer", "keeper", "deliveries", "recovery", "logged"],
    ["succession"],
    ["verdicts"],
    ["decided"],
    ["reconcile"],
    ["pipeline"],
    ["sources"],
    ["frames"],
    ["ingest"],
    ["labelled"],
    ["targets"],
    ["replay", "verify", "entities", "backtest"],
    ["versions", "lists.desk"],
    ["workspace"],
    ["testing"],
    ["service"],
    ["cli"],
    ["__init__"],
    ["__main__"],
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}


def part_of(module: str) -> str:
    """The part of the journey that a dotted module below `tidegate` belongs to."""
    known = [p for p in RANK if module == p or module.startswith(p + ".")]
    assert known, f"{module} is in no part of the journey: add it to ORDER"
    return max(known, key=len)


def imported(path: Path) -> set[str]:
    """The modules below `tidegate` that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return {m.removeprefix("tidegate.") for m in found if m.startswith("tidegate.")}


def test_each_stage_imports_only_earlier_stages() -> None:
    """A stage may import itself, earlier stages and the base."""
    against = []
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        own = part_of(name)
        for module in imported(path):
            other = part_of(module)
            if other != own and RANK[other] >= RANK[own]:
                against.append(f"{name} imports {module}")
    assert not against
