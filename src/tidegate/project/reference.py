"""The page of all settings, written from their declarations.

`python -m tidegate.project.reference > docs/settings.md` brings the page up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tidegate.project.setting import Setting, settings_of
from tidegate.project.settings import (
    Access,
    Data,
    Features,
    Labels,
    Log,
    Query,
    Rule,
    Score,
    Service,
    Stream,
    ValueList,
    Warehouse,
    Window,
)
from tidegate.project.sinks import TYPES, Sink

# By heading: the dataclass that declares the table, then one whose settings stand elsewhere.
TABLES: dict[str, tuple[type, ...]] = {
    "[stream]": (Stream,),
    "[features]": (Features,),
    "[labels]": (Labels,),
    "[[windows]]": (Window,),
    "[lists.NAME]": (ValueList,),
    "[sinks.NAME]": (Sink,),
    **{f'[sinks.NAME] with type = "{name}"': (kind, Sink) for name, kind in TYPES.items()},
    "[service]": (Service,),
    "[access]": (Access,),
    "[score]": (Score,),
    "[query]": (Query,),
    "[warehouse]": (Warehouse,),
    "[log]": (Log,),
    "[data]": (Data,),
    "[[rule]] in rules.toml": (Rule,),
}


_INTRODUCTION = """\
# Settings

Written from the declarations in the code by `python -m tidegate.project.reference`; do not edit.

A project is a folder with `tidegate.toml`, `rules.toml` and the SQL files that they name. What is
not written has its default. `tidegate check` shows every mistake with its place.

- A **duration** has its unit: `"250 ms"`, `"4 minutes"`, `"1.5 hours"`, `"7 days"` (`us`, `ms`,
  `s`, `min`, `h`, or the words in full, up to `weeks`).
- A **size** has its unit: `"10485763 B"`, `"64 KiB"`, `"8 MiB"` (1024), `"1 GB"` (1000).
- A **name** has `a` to `z`, `0` to `9` and `_`, beginning with a letter.
- Secrets are never written, only the names of the environment variables that hold them.
"""


def page() -> str:
    """The page, in Markdown."""
    return _INTRODUCTION + "".join(_sections())


def _sections() -> Iterator[str]:
    for heading, (declared, *elsewhere) in TABLES.items():
        known = {s.key for other in elsewhere for s in settings_of(other)}
        yield f"\n## {heading}\n\n{(declared.__doc__ or '').strip()}\n\n"
        yield "| setting | kind | default | what it does |\n|---|---|---|---|\n"
        yield from (_row(s) for s in settings_of(declared) if s.key not in known)


def _row(each: Setting) -> str:
    kind = f"{each.kind.name}: {each.kind.bounds}" if each.kind.bounds else each.kind.name
    cells = (f"`{each.key}`", kind.replace("of: ", "of "), written(each), each.sentence)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |\n"


def written(each: Setting) -> str:
    """The default as a user would write it, in Markdown."""
    if each.is_required:
        return "required"
    match each.default:
        case None:
            return "none"
        case bool():
            return f"`{str(each.default).lower()}`"
        case str():
            return f'`"{each.default}"`'
        case list():
            return "`[" + ", ".join(f'"{word}"' for word in each.default) + "]`"
        case _:
            return f"`{each.default}`"


if __name__ == "__main__":
    sys.stdout.write(page())
