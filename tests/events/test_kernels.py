"""The kernels are compiled once, for one set of types."""

from __future__ import annotations

from tidegate.events.body import find_elements
from tidegate.events.kernels import warm_up
from tidegate.events.pack import fill, measure
from tidegate.events.scan import scan


def test_each_kernel_has_exactly_one_specialisation() -> None:
    warm_up()
    warm_up()
    for kernel in (scan, measure, fill, find_elements):
        assert len(kernel.signatures) == 1
