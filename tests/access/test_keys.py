"""API keys in the operational database: what is kept of them, and what is not."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.access import SCOPES, Keys
from tidegate.access.audit import relay
from tidegate.access.expiry import expiry_us
from tidegate.access.secret import Cost, hashed, parts
from tidegate.controls import AuditRecord
from tidegate.errors import DamageError, RequestError
from tidegate.testing.clock import ManualClock

DAY = 86_400_000_000
NOON = 1_686_139_200_000_000
CHEAP = Cost(n=2)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def keys(tmp_path: Path, clock: ManualClock) -> Iterator[Keys]:
    opened = Keys.open(tmp_path / "operational.sqlite", clock=clock, cost=CHEAP)
    yield opened
    opened.close()


def test_a_key_is_kept_with_all_but_its_secret(keys: Keys, tmp_path: Path) -> None:
    key, text = keys.add("till", scopes=["score", "ingest"], author="ann", expires_us=NOON + DAY)
    split = parts(text.encode())
    assert split is not None
    assert (key.prefix, len(split[1])) == (split[0], 43)
    assert keys.all() == [key]
    assert key.scopes == ("ingest", "score")
    assert (key.created_by, key.created_us, key.expires_us) == ("ann", NOON, NOON + DAY)
    for file in tmp_path.iterdir():
        assert split[1] not in file.read_bytes()


def test_only_the_owner_can_read_the_file(keys: Keys, tmp_path: Path) -> None:
    keys.add("till", scopes=["score"], author="ann")
    assert {f.stat().st_mode & 0o777 for f in tmp_path.iterdir()} == {0o600}


def test_what_the_hash_cost_is_kept_beside_it(keys: Keys, tmp_path: Path) -> None:
    _, text = keys.add("till", scopes=["score"], author="ann")
    again = Keys.open(tmp_path / "operational.sqlite", clock=ManualClock(NOON), cost=Cost(n=4))
    prefix, secret = parts(text.encode()) or ("", b"")
    found, _ = again.find(prefix)
    again.close()
    assert found is not None
    assert found.hashed.cost == CHEAP
    assert found.hashed.matches(secret)
    assert not found.hashed.matches(secret[:-1] + b"?")


def test_by_default_a_hash_is_slow_and_takes_much_memory() -> None:
    cost = Cost()
    assert (cost.n, cost.r, cost.p) == (32_768, 8, 1)
    assert hashed(b"secret", cost=cost).matches(b"secret")


def test_a_revoked_key_stays_in_the_list_and_is_revoked_once(
    keys: Keys, clock: ManualClock
) -> None:
    key, _ = keys.add("till", scopes=["score"], author="ann")
    clock.advance(DAY)
    revoked = keys.revoke(key.prefix, author="bob")
    clock.advance(DAY)
    assert keys.revoke(key.prefix, author="eve") == revoked
    assert keys.all() == [revoked]
    assert revoked.revoked_us == NOON + DAY
    assert [revoked.state(NOON), key.state(NOON)] == ["revoked", "active"]


def test_a_key_is_expired_from_its_end_on(keys: Keys) -> None:
    key, _ = keys.add("till", scopes=["score"], author="ann", expires_us=NOON + DAY)
    assert [key.state(NOON + DAY - 1), key.state(NOON + DAY)] == ["active", "expired"]


@pytest.mark.parametrize(
    ("name", "scopes", "expires_us", "code"),
    [
        ("", ["score"], None, "bad_name"),
        ("a\nb", ["score"], None, "bad_name"),
        ("a" * 101, ["score"], None, "bad_name"),
        ("till", [], None, "no_scope"),
        ("till", ["scores"], None, "unknown_scope"),
        ("till", ["score"], NOON, "bad_expiry"),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    keys: Keys, name: str, scopes: list[str], expires_us: int | None, code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        keys.add(name, scopes=scopes, author="ann", expires_us=expires_us)
    assert caught.value.code == code
    assert keys.all() == []
    assert keys.revision() == 0


def test_there_is_no_key_to_revoke_under_another_prefix(keys: Keys) -> None:
    with pytest.raises(RequestError, match="no key `abcdefgh`"):
        keys.revoke("abcdefgh", author="ann")
    assert keys.unlogged() == []


def test_each_change_raises_the_revision_and_use_does_not(keys: Keys) -> None:
    key, _ = keys.add("till", scopes=["score"], author="ann")
    keys.note_use({key.prefix: NOON + 5, "unknown1": NOON})
    keys.note_use({key.prefix: NOON + 3})
    assert keys.all()[0].last_used_us == NOON + 5
    assert keys.revision() == 1
    keys.revoke(key.prefix, author="ann")
    assert keys.revision() == 2


def test_changes_go_to_the_log_once_in_order_and_without_secrets(keys: Keys) -> None:
    key, text = keys.add("till", scopes=["score"], author="ann")
    keys.revoke(key.prefix, author="bob")
    taken: list[AuditRecord] = []
    assert relay(keys, taken.extend) == 2
    assert relay(keys, taken.extend) == 0
    assert [(r.action, r.subject, r.author) for r in taken] == [
        ("key.add", key.prefix, "ann"),
        ("key.revoke", key.prefix, "bob"),
    ]
    assert taken[0].detail["scopes"] == ["score"]
    assert text.rpartition("_")[2] not in str(taken)


def test_a_change_that_the_log_does_not_take_waits(keys: Keys) -> None:
    keys.add("till", scopes=["score"], author="ann")

    def fail(_: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        relay(keys, fail)
    assert len(keys.unlogged()) == 1


def test_many_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    def open_and_add(_: int) -> None:
        keys = Keys.open(tmp_path / "new.sqlite", clock=ManualClock(NOON), cost=CHEAP)
        keys.add("till", scopes=["score"], author="ann")
        keys.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_and_add, range(8)))
    keys = Keys.open(tmp_path / "new.sqlite", clock=ManualClock(NOON))
    assert (len(keys.all()), keys.revision()) == (8, 8)
    keys.close()


def test_what_is_no_database_is_damage(tmp_path: Path) -> None:
    (tmp_path / "operational.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DamageError, match=r"operational\.sqlite"):
        Keys.open(tmp_path / "operational.sqlite", clock=ManualClock(NOON))


def test_the_database_is_written_ahead(keys: Keys, tmp_path: Path) -> None:
    keys.add("till", scopes=["score"], author="ann")
    connection = sqlite3.connect(tmp_path / "operational.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@given(st.text() | st.from_regex(r"tg_[a-z0-9_]{0,10}_[A-Za-z0-9]{40,45}\n?", fullmatch=True))
def test_what_is_not_written_like_a_key_has_no_parts(text: str) -> None:
    split = parts(text.encode("utf-8", "surrogatepass"))
    if split is not None:
        assert text == f"tg_{split[0]}_{split[1].decode()}"
        assert (len(split[0]), len(split[1])) == (8, 43)


@pytest.mark.parametrize("written", ["90", "90 moons", "soon", "", "-1d", "0 seconds"])
def test_an_expiry_that_says_no_time_is_refused(written: str) -> None:
    with pytest.raises(RequestError, match="is no expiry"):
        expiry_us(written, now=NOON)


def test_an_expiry_is_a_length_or_a_time() -> None:
    assert expiry_us("90d", now=NOON) == NOON + 90 * DAY
    assert expiry_us("2 weeks", now=NOON) == NOON + 14 * DAY
    assert expiry_us("2023-06-08T12:00:00", now=NOON) == NOON + DAY
    assert expiry_us("2023-06-08T14:00:00+02:00", now=NOON) == NOON + DAY


def test_scopes_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    assert all(f"| `{scope}` |" in page for scope in SCOPES)
