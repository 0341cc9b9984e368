"""A generator of card payments with three kinds of fraud, the same for the same seed.

Customers and terminals are spread evenly over a square of 100 by 100; a customer pays at terminals
closer than 5. A customer has a mean amount, U(5, 100), with a standard deviation of half of it, and
a mean number of payments a day, U(0, 4). A day has Poisson(mean) payments, each at N(43,200 s,
20,000 s) of the day, kept if that lies inside it, and of N(mean, deviation), or of U(0, 2 mean) if
that is negative. Frauds:

1. a payment of more than 220;
2. each day 2 terminals are broken into: all their payments of 28 days, that one included;
3. each day 3 cards are stolen: in 14 days a third of their payments is five times as high.

Where two apply, the higher number is the payment's scenario. That is the simulator of the handbook
"Reproducible Machine Learning for Credit Card Fraud Detection" (Le Borgne, Siblini, Lebichot,
Bontempi; 2021), from its description. Added to it here:

- times have microseconds, so that two payments of a card hardly ever have the same;
- each payment of a stolen card is a fraud with a probability of a third, drawn by itself;
- `device`: each customer has one, every other one a second for a fifth of the payments; frauds of
  scenario 3 come from the device of whoever stole the card, which is one for all cards of a day;
- events of type `login_failed`, which have no amount, terminal or label: now and then one of any
  customer, and 0 to 3 of the stolen card in the ten minutes before a fraud of scenario 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

CUSTOMERS = 5_000
TERMINALS = 10_000
START_TIME_US = 1_522_540_800_000_000  # 2018-04-01, where the published data begins
DAY_US = 86_400_000_000

_FIELDS: list[pa.Field[Any]] = [
    pa.field("id", pa.int64(), nullable=False),
    pa.field("event_time", pa.timestamp("us"), nullable=False),
    pa.field("event_type", pa.string(), nullable=False),
    pa.field("card", pa.int64(), nullable=False),
    pa.field("device", pa.string(), nullable=False),
    pa.field("terminal", pa.int64()),
    pa.field("amount", pa.float64()),
    pa.field("is_fraud", pa.int64()),
    pa.field("fraud_scenario", pa.int64()),
]
SCHEMA = pa.schema(_FIELDS)

_SIDE, _REACH = 100.0, 5.0
_NOON_SECONDS, _SPREAD_SECONDS = 43_200.0, 20_000.0
_INSIDE = 0.9692  # the share of such times that lie inside the day
_PAYMENTS_MEAN = 2.0
_HIGH_AMOUNT = 220.0
_TERMINALS_A_DAY, _TERMINAL_DAYS = 2, 28
_CARDS_A_DAY, _CARD_DAYS, _CARD_SHARE, _CARD_FACTOR = 3, 14, 1 / 3, 5.0
_SECOND_DEVICE_SHARE = 0.2
_LOGINS_A_DAY = 0.02
_LOGINS_BEFORE_FRAUD = 3
_LOGINS_WITHIN_US = 600_000_000

# What a random stream is for. Each day has streams of its own, so that none depends on how many
# numbers another has drawn.
_WORLD, _EVENTS, _TERMINALS_BROKEN, _CARDS_STOLEN = range(4)

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


def generate(
    days: int,
    *,
    seed: int,
    start_time_us: int = START_TIME_US,
    customers: int = CUSTOMERS,
    terminals: int = TERMINALS,
    batch_records: int = 65_536,
) -> Iterator[pa.RecordBatch]:
    """The events of `days` days in event-time order, as batches of `SCHEMA`.

    A batch has at most `batch_records` events, all of one day; the events are the same however
    many. Fewer days of a seed are the beginning of more. `id` counts from 0. One day is held at a
    time, and the terminals near each customer: 8 bytes for each pair, of which there are about
    `customers * terminals / 127`. A day begins at `start_time_us` or whole days after it.
    Raises: ValueError for a negative seed, or no customers or terminals.
    """
    if seed < 0 or customers < 1 or terminals < 1:
        seen = f"seed {seed}, {customers} customers, {terminals} terminals"
        raise ValueError(f"seed from 0, customers and terminals from 1 are needed, not {seen}")
    return _batches(_World.of(seed, customers, terminals), days, start_time_us, batch_records)


def generate_ndjson(
    days: int,
    *,
    seed: int,
    start_time_us: int = START_TIME_US,
    customers: int = CUSTOMERS,
    terminals: int = TERMINALS,
    batch_records: int = 65_536,
) -> Iterator[bytes]:
    """The events of `generate` as blocks of NDJSON, a line for each event.

    >>> next(generate_ndjson(1, seed=7)).splitlines()[0][:60]
    b'{"id":0,"event_time":"2018-04-01T00:00:51.514063","event_typ'
    """
    found = generate(
        days,
        seed=seed,
        start_time_us=start_time_us,
        customers=customers,
        terminals=terminals,
        batch_records=batch_records,
    )
    return map(_ndjson, found)


def expected_events(days: int, *, customers: int = CUSTOMERS) -> int:
    """About how many events so many days have: the mean over all seeds, to a percent or two."""
    return round(days * customers * (_PAYMENTS_MEAN * _INSIDE + _LOGINS_A_DAY))


def _batches(
    world: _World, days: int, start_time_us: int, batch_records: int
) -> Iterator[pa.RecordBatch]:
    first = 0
    for day in range(days):
        events = _day(world, day)
        batch = events.batch(first, start_time_us + day * DAY_US)
        for begin in range(0, batch.num_rows, batch_records):
            yield batch.slice(begin, batch_records)
        first += batch.num_rows


# -- customers and terminals -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _World:
    """Who pays, and where; arrays of shape (customers,), but `near`."""

    seed: int
    terminals: int
    amount: _Floats  # the mean, in money
    a_day: _Floats  # the mean number of payments
    has_second: npt.NDArray[np.bool_]  # device
    near: _Ints  # terminals, those of customer c from first[c] on, count[c] of them
    first: _Ints
    count: _Ints

    @classmethod
    def of(cls, seed: int, customers: int, terminals: int) -> _World:
        rng = np.random.default_rng([seed, _WORLD])
        homes = rng.uniform(0, _SIDE, (customers, 2))
        near, count = _near(homes, rng.uniform(0, _SIDE, (terminals, 2)))
        amount = rng.uniform(5, 100, customers)
        a_day = rng.uniform(0, 2 * _PAYMENTS_MEAN, customers)
        return cls(
            seed=seed,
            terminals=terminals,
            amount=amount,
            a_day=np.where(count > 0, a_day, 0.0),  # nowhere to pay
            has_second=rng.random(customers) < 0.5,
            near=near,
            first=np.cumsum(count) - count,
            count=count,
        )

    @property
    def customers(self) -> int:
        return len(self.amount)


def _near(homes: _Floats, places: _Floats) -> tuple[_Ints, _Ints]:
    """The terminals close to each customer, one customer after the other, and how many of each.

    The square is cut into cells as wide as customers reach, so that those of a cell need only be
    held against the terminals of the nine cells around it.
    """
    wide = int(_SIDE / _REACH)
    cells = np.clip((places / _REACH).astype(np.int64), 0, wide - 1)
    own = np.clip((homes / _REACH).astype(np.int64), 0, wide - 1)
    pairs = []
    for x in range(wide):
        column = np.flatnonzero(np.abs(cells[:, 0] - x) <= 1)
        for y in range(wide):
            around = column[np.abs(cells[column, 1] - y) <= 1]
            inside = np.flatnonzero((own[:, 0] == x) & (own[:, 1] == y))
            apart = homes[inside, None, :] - places[None, around, :]
            customer, terminal = np.nonzero((apart**2).sum(axis=2) < _REACH**2)
            pairs.append(np.stack([inside[customer], around[terminal]]))
    customer, terminal = np.concatenate(pairs, axis=1)
    count = np.bincount(customer, minlength=len(homes)).astype(np.int64)
    return terminal[np.argsort(customer, kind="stable")], count


# -- a day -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Events:
    """Events of a day as numbers, shape (n,); `time_us` from the day's beginning."""

    time_us: _Ints
    card: _Ints
    device: _Ints
    terminal: _Ints  # -1 for a failed login
    amount: _Floats
    scenario: _Ints

    def batch(self, first: int, begin_us: int) -> pa.RecordBatch:
        """In order of time, the first with the id `first`."""
        order = np.argsort(self.time_us, kind="stable")
        is_login = self.terminal[order] < 0
        time = pa.array(begin_us + self.time_us[order]).cast(pa.timestamp("us"))
        scenario = self.scenario[order]
        columns: list[pa.Array[Any]] = [
            pa.array(np.arange(first, first + len(order))),
            time,
            pa.array(["payment", "login_failed"]).take(is_login.astype(np.int64)),
            pa.array(self.card[order]),
            _device_names(self.device[order]),
            pa.array(self.terminal[order], mask=is_login),
            pa.array(self.amount[order], mask=is_login),
            pa.array((scenario > 0).astype(np.int64), mask=is_login),
            pa.array(scenario, mask=is_login),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _device_names(devices: _Ints) -> pa.Array[Any]:
    parts: list[Any] = [pa.scalar("d"), pa.array(devices).cast(pa.string()), pa.scalar("")]
    names: pa.Array[Any] = pc.binary_join_element_wise(*parts)
    return names


def _day(world: _World, day: int) -> _Events:
    rng = np.random.default_rng([world.seed, _EVENTS, day])
    payments = _payments(world, day, rng)
    parts = payments, _usual_logins(world, rng), _logins_of_thieves(payments, rng)
    return _Events(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in _Events.__dataclass_fields__
        )
    )


def _payments(world: _World, day: int, rng: np.random.Generator) -> _Events:
    card, time_us = _when(world.a_day, rng)
    amount = _amounts(world.amount[card], rng)
    terminal = world.near[world.first[card] + _below(world.count[card], rng)]
    scenario = np.where(amount > _HIGH_AMOUNT, 1, 0)
    scenario[_broken_into(world, day)[terminal]] = 2
    thief = _thieves(world, day)[card]
    is_stolen = (thief >= 0) & (rng.random(len(card)) < _CARD_SHARE)
    scenario[is_stolen] = 3
    return _Events(
        time_us=time_us,
        card=card,
        device=np.where(is_stolen, thief, _own_devices(world, card, rng)),
        terminal=terminal,
        amount=np.where(is_stolen, _cents(amount * _CARD_FACTOR), amount),
        scenario=scenario,
    )


def _when(a_day: _Floats, rng: np.random.Generator) -> tuple[_Ints, _Ints]:
    """Customers and times of a day of which each has `a_day` on average."""
    card = np.repeat(np.arange(len(a_day)), rng.poisson(a_day))
    time_us = (rng.normal(_NOON_SECONDS, _SPREAD_SECONDS, len(card)) * 1e6).astype(np.int64)
    inside = (time_us >= 0) & (time_us < DAY_US)
    return card[inside], time_us[inside]


def _amounts(mean: _Floats, rng: np.random.Generator) -> _Floats:
    amount: _Floats = rng.normal(mean, mean / 2)
    again = rng.uniform(0, 2 * mean)
    return _cents(np.where(amount < 0, again, amount))


def _cents(amount: _Floats) -> _Floats:
    """Money with two decimals."""
    return np.rint(amount * 100) / 100


def _below(count: _Ints, rng: np.random.Generator) -> _Ints:
    """A whole number from 0 on below each of `count`."""
    return (rng.random(len(count)) * count).astype(np.int64)


def _own_devices(world: _World, card: _Ints, rng: np.random.Generator) -> _Ints:
    is_second = world.has_second[card] & (rng.random(len(card)) < _SECOND_DEVICE_SHARE)
    return 2 * card + is_second


def _usual_logins(world: _World, rng: np.random.Generator) -> _Events:
    card, time_us = _when(np.full(world.customers, _LOGINS_A_DAY), rng)
    return _logins(time_us, card, _own_devices(world, card, rng))


def _logins_of_thieves(payments: _Events, rng: np.random.Generator) -> _Events:
    """Before frauds of scenario 3; none before midnight, so that each day stands by itself."""
    frauds = np.flatnonzero(payments.scenario == 3)
    tries = rng.integers(0, _LOGINS_BEFORE_FRAUD + 1, len(frauds))
    at = np.repeat(frauds, tries)
    earlier = rng.integers(1, _LOGINS_WITHIN_US, len(at))
    time_us = np.maximum(payments.time_us[at] - earlier, 0)
    return _logins(time_us, payments.card[at], payments.device[at])


def _logins(time_us: _Ints, card: _Ints, device: _Ints) -> _Events:
    nowhere, nothing = np.full(len(card), -1), np.zeros(len(card))
    return _Events(time_us, card, device, nowhere, nothing, np.zeros(len(card), np.int64))


# -- frauds ----------------------------------------------------------------------------------------


def _broken_into(world: _World, day: int) -> npt.NDArray[np.bool_]:
    """Of each terminal, whether it was broken into within the last days, this one included."""
    is_broken = np.zeros(world.terminals, dtype=np.bool_)
    for earlier in range(max(0, day - _TERMINAL_DAYS + 1), day + 1):
        rng = np.random.default_rng([world.seed, _TERMINALS_BROKEN, earlier])
        is_broken[_some(world.terminals, _TERMINALS_A_DAY, rng)] = True
    return is_broken


def _thieves(world: _World, day: int) -> _Ints:
    """Of each customer the device of whoever has stolen the card within the last days, or -1."""
    device = np.full(world.customers, -1)
    for earlier in range(max(0, day - _CARD_DAYS + 1), day + 1):
        rng = np.random.default_rng([world.seed, _CARDS_STOLEN, earlier])
        device[_some(world.customers, _CARDS_A_DAY, rng)] = 2 * world.customers + earlier
    return device


def _some(of: int, count: int, rng: np.random.Generator) -> _Ints:
    return rng.choice(of, min(of, count), replace=False)


# -- as text ---------------------------------------------------------------------------------------


def _ndjson(batch: pa.RecordBatch) -> bytes:
    frame = pl.DataFrame(batch).with_columns(
        pl.col("event_time").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")
    )
    return frame.write_ndjson().encode()
