"""Case mapping and trimming over all of Unicode, letter by letter, against DuckDB."""

from __future__ import annotations

import unicodedata

import pytest
from duckdb_oracle import Oracle, batch_of, same

LETTERS = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c <= 0xDFFF]


@pytest.fixture(scope="module")
def differing() -> dict[str, set[str]]:
    """For each expression, the letters of which DuckDB and we say different things."""
    oracle, batch = Oracle(), batch_of(s=LETTERS)
    return {
        text: {
            c for c, row in zip(LETTERS, oracle.compare(text, batch), strict=True) if not same(row)
        }
        for text in ("lower(s)", "upper(s)", "trim(s)", "length(s)", "s ILIKE 'é'")
    }


@pytest.mark.parametrize("text", ["trim(s)", "length(s)", "s ILIKE 'é'"])
def test_every_letter_is_treated_as_duckdb_treats_it(
    differing: dict[str, set[str]], text: str
) -> None:
    assert differing[text] == set()


@pytest.mark.parametrize("text", ["lower(s)", "upper(s)"])
def test_case_differs_only_for_letters_newer_than_duckdbs_tables(
    differing: dict[str, set[str]], text: str
) -> None:
    # The named difference of docs/sql.md: letters whose partner joined Unicode after version 15.
    known = {c for c in differing[text] if c in "\u019b\u0264\ua7cb\ua7d2\ua7d3\ua7d4\ua7d5\ua7dc"}
    newer = {c for c in differing[text] if unicodedata.name(c, "") == "" or c >= "\u1c89"}
    assert differing[text] <= known | newer
    assert len(differing[text]) < 60


def test_a_sigma_at_the_end_of_a_word_stays_the_common_one() -> None:
    [row] = Oracle().compare("lower(s)", batch_of(s=["ΟΔΟΣ ΣΑΣ"]))
    assert row.found == "οδοσ σασ"  # noqa: RUF001 - Greek
    assert same(row)
