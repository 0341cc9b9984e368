"""The page of settings says what the declarations say."""

import re
from pathlib import Path

import pytest

from tidegate.project import settings as declared
from tidegate.project import sinks
from tidegate.project.reference import TABLES, page, written
from tidegate.project.setting import NOWHERE, Setting, settings_of

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ALL = [(heading, s) for heading, tables in TABLES.items() for s in settings_of(tables[0])]


def test_the_page_is_up_to_date() -> None:
    hint = "run `python -m tidegate.project.reference > docs/settings.md`"
    assert PAGE.read_text() == page(), hint


def test_every_declared_table_is_on_the_page() -> None:
    tables = {
        kind
        for module in (declared, sinks)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and hasattr(kind, "__dataclass_fields__")
        and any(settings_of(kind))
    }
    assert tables == {kinds[0] for kinds in TABLES.values()}


@pytest.mark.parametrize(("heading", "each"), ALL, ids=lambda v: v if isinstance(v, str) else v.key)
def test_every_setting_has_one_sentence_and_a_default_of_its_kind(
    heading: str, each: Setting
) -> None:
    assert f"| `{each.key}` |" in page()
    assert re.fullmatch(r"[A-Z`].*\.", each.sentence)
    if not each.is_required and each.default is not None:
        each.kind.parse(each.default, NOWHERE)


def test_defaults_are_shown_as_users_write_them() -> None:
    shown = {s.key: written(s) for heading, s in ALL if heading in ("[service]", "[stream]")}
    assert shown["port"] == "`8700`"
    assert shown["host"] == '`"127.0.0.1"`'
    assert shown["producer_endpoint"] == "`false`"
    assert shown["id"] == "required"
