"""Presented keys: known ones at once, wrong ones slowly and not too often."""

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.access import Caller, Keys, Rejected, Verifier
from tidegate.access import secret as secrets_module
from tidegate.access.attempts import Attempts
from tidegate.access.secret import Cost, Hashed, new_prefix, new_secret, written
from tidegate.clock import SystemClock
from tidegate.testing.clock import ManualClock
from waiting import until

SECOND = 1_000_000
NOON = 1_686_139_200_000_000
LIMIT = 4
HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def keys(tmp_path: Path, clock: ManualClock) -> Iterator[Keys]:
    opened = Keys.open(tmp_path / "operational.sqlite", clock=clock, cost=Cost(n=2))
    yield opened
    opened.close()


@pytest.fixture
def verifier(keys: Keys, clock: ManualClock) -> Verifier:
    """Not started: it looks for changes only when it is told to."""
    made = Verifier(keys, clock=clock, wrong_per_minute=LIMIT)
    made.look()
    return made


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[Cost]:
    """What each slow hash cost, in order; the hash itself is the real one."""
    made: list[Cost] = []
    matches = Hashed.matches

    def counted(self: Hashed, secret: bytes) -> bool:
        made.append(self.cost)
        return matches(self, secret)

    monkeypatch.setattr(Hashed, "matches", counted)
    return made


def add(keys: Keys, *, expires_us: int | None = None) -> tuple[str, bytes]:
    key, text = keys.add("till", scopes=["score"], author="ann", expires_us=expires_us)
    return key.prefix, text.encode()


def wrong(prefix: str | None = None) -> bytes:
    return written(prefix or new_prefix(), new_secret()).encode()


def test_a_key_is_hashed_once_and_known_from_then_on(
    keys: Keys, verifier: Verifier, hashes: list[Cost]
) -> None:
    prefix, text = add(keys)
    till = Caller("till", prefix, frozenset({"score"}))
    assert verifier.known(text) is None
    assert verifier.check(text, HERE) == till
    assert verifier.known(text) == till
    assert verifier.check(text, HERE) == till
    assert len(hashes) == 1


def test_a_wrong_secret_and_an_unknown_prefix_cost_the_same_and_sound_the_same(
    keys: Keys, verifier: Verifier, hashes: list[Cost]
) -> None:
    prefix, _ = add(keys)
    said = [verifier.check(wrong(prefix), HERE), verifier.check(wrong(), HERE)]
    assert said[0] == said[1] == Rejected("the key is not valid")
    assert hashes == [Cost(n=2)] * 2


def test_what_is_not_written_like_a_key_costs_no_hash(
    verifier: Verifier, hashes: list[Cost]
) -> None:
    assert isinstance(verifier.check(b"tg_short_x", HERE), Rejected)
    assert hashes == []


def test_a_revoked_key_is_forgotten_at_the_next_look(keys: Keys, verifier: Verifier) -> None:
    prefix, text = add(keys)
    verifier.check(text, HERE)
    keys.revoke(prefix, author="ann")
    verifier.look()
    assert verifier.known(text) is None
    assert verifier.check(text, HERE) == Rejected(f"the key `{prefix}` was revoked")


def test_an_expired_key_is_refused_at_its_end(
    keys: Keys, verifier: Verifier, clock: ManualClock
) -> None:
    prefix, text = add(keys, expires_us=NOON + SECOND)
    assert isinstance(verifier.check(text, HERE), Caller)
    clock.advance(SECOND - 1)
    assert verifier.known(text) is not None
    clock.advance(1)
    assert verifier.known(text) is None
    assert verifier.check(text, HERE) == Rejected(f"the key `{prefix}` has expired")


def test_a_key_that_is_revoked_while_it_is_hashed_is_not_remembered(
    keys: Keys, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, text = add(keys)
    digest = secrets_module._digest

    def revoked_meanwhile(*args: object) -> bytes:
        keys.revoke(prefix, author="ann")
        verifier.look()
        return digest(*args)  # type: ignore[arg-type] # handed on as they came

    monkeypatch.setattr(secrets_module, "_digest", revoked_meanwhile)
    verifier.check(text, HERE)
    assert verifier.known(text) is None
    assert verifier.check(text, HERE) == Rejected(f"the key `{prefix}` was revoked")


def test_keys_are_not_trusted_where_nobody_has_looked_for_long(
    keys: Keys, verifier: Verifier, clock: ManualClock, hashes: list[Cost]
) -> None:
    _, text = add(keys)
    verifier.check(text, HERE)
    clock.advance(6 * SECOND)
    assert verifier.known(text) is None
    assert isinstance(verifier.check(text, HERE), Caller)  # looks, and needs no hash for it
    assert verifier.known(text) is not None
    assert len(hashes) == 1


def _revoke(path: Path, prefix: str) -> None:
    keys = Keys.open(path, clock=SystemClock(), cost=Cost(n=2))
    keys.revoke(prefix, author="somebody else")
    keys.close()


def test_a_key_that_another_process_revokes_ends_within_a_second_or_two(tmp_path: Path) -> None:
    path = tmp_path / "operational.sqlite"
    keys = Keys.open(path, clock=SystemClock(), cost=Cost(n=2))
    verifier = Verifier(keys, clock=SystemClock(), wrong_per_minute=LIMIT)
    verifier.start()
    prefix, text = add(keys)
    verifier.check(text, HERE)
    until(lambda: verifier.known(text) or verifier.check(text, HERE))
    other = multiprocessing.get_context("spawn").Process(target=_revoke, args=(path, prefix))
    other.start()
    other.join(30)
    until(lambda: verifier.known(text) is None)
    verifier.close()


def test_the_time_of_the_last_use_is_kept(
    keys: Keys, verifier: Verifier, clock: ManualClock
) -> None:
    _, text = add(keys)
    verifier.check(text, HERE)
    clock.advance(SECOND)
    verifier.known(text)
    verifier.note_use()
    assert keys.all()[0].last_used_us == NOON + SECOND


# -- guessing --------------------------------------------------------------------------------------


def test_an_address_that_sends_wrong_keys_is_held_off_for_a_minute(
    keys: Keys, verifier: Verifier, clock: ManualClock, hashes: list[Cost]
) -> None:
    _, text = add(keys)
    for _ in range(LIMIT):
        assert verifier.check(wrong(), HERE) == Rejected("the key is not valid")
    clock.advance(20 * SECOND)
    held = verifier.check(wrong(), HERE)
    assert isinstance(held, Rejected)
    assert held.retry_after_seconds == 40
    assert verifier.is_held_off(wrong(), HERE) == held
    assert len(hashes) == LIMIT
    # Not even the right key is looked at, else guesses could go on behind it. Elsewhere it is.
    assert isinstance(verifier.check(text, HERE), Rejected)
    assert isinstance(verifier.check(text, THERE), Caller)
    assert isinstance(verifier.check(text, HERE), Caller)  # known by now
    clock.advance(40 * SECOND)
    assert verifier.check(wrong(), HERE) == Rejected("the key is not valid")


def test_a_prefix_that_is_guessed_at_from_everywhere_is_held_off(
    keys: Keys, verifier: Verifier
) -> None:
    prefix, text = add(keys)
    for i in range(5 * LIMIT):
        assert verifier.check(wrong(prefix), f"198.51.100.{i}") == Rejected("the key is not valid")
    held = verifier.check(wrong(prefix), "203.0.113.1")
    assert isinstance(held, Rejected)
    assert held.retry_after_seconds is not None
    assert verifier.check(wrong(), "203.0.113.1") == Rejected("the key is not valid")
    assert isinstance(verifier.check(text, "203.0.113.1"), Rejected)


def test_right_keys_are_no_failures(keys: Keys, verifier: Verifier) -> None:
    for _ in range(3 * LIMIT):
        _, text = add(keys)
        assert isinstance(verifier.check(text, HERE), Caller)


def test_many_guesses_at_once_do_not_slip_through(
    keys: Keys, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Verifier(keys, clock=clock, wrong_per_minute=LIMIT)
    hashing = threading.Semaphore(0)
    begun: list[None] = []

    def waits(_self: Hashed, _secret: bytes) -> bool:
        begun.append(None)
        hashing.acquire()
        return False

    monkeypatch.setattr(Hashed, "matches", waits)
    said: list[object] = []
    guesses = [
        threading.Thread(target=lambda: said.append(slow.check(wrong(), HERE)))
        for _ in range(3 * LIMIT)
    ]
    for guess in guesses:
        guess.start()
    until(lambda: len(said) == 2 * LIMIT)
    hashing.release(3 * LIMIT)
    for guess in guesses:
        guess.join()
    assert len(begun) == LIMIT


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 90 * SECOND)), max_size=40))
def test_no_name_has_more_attempts_in_its_window_than_the_limit(
    attempts: list[tuple[str, int]],
) -> None:
    clock = ManualClock(NOON)
    counted = Attempts(per_minute=LIMIT, clock=clock)
    begun: dict[str, list[int]] = {}
    for address, pause in attempts:
        now = clock.advance(pause)
        earlier = begun.setdefault(address, [])
        wait = counted.begin(address=address, prefix=address)
        if wait is None:
            earlier.append(now)
        else:
            assert 0 < wait <= 60
            assert len([t for t in earlier if now - t < 60 * SECOND]) >= 1
        # A window is a minute from its first failure on, so two can meet.
        assert len([t for t in earlier if now - t < 60 * SECOND]) <= 2 * LIMIT


def test_memory_is_bounded_however_many_addresses_there_are() -> None:
    counted = Attempts(per_minute=LIMIT, clock=ManualClock(NOON))
    for i in range(25_000):
        counted.begin(address=f"a{i}", prefix=f"p{i}")
    assert len(counted._addresses._held) == 10_000
    assert len(counted._prefixes._held) == 10_000


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    counted = Attempts(per_minute=1, clock=ManualClock(NOON))
    assert counted.begin(address="2001:db8::1", prefix="p1") is None
    assert counted.begin(address="2001:db8::2", prefix="p2") == 60
    assert counted.begin(address="2001:db8:0:1::2", prefix="p3") is None
