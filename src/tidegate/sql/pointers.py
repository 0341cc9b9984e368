"""Memory by its address, and doubles by their bits, for compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

Words: TypeAlias = npt.NDArray[np.int64]


def _pointer_to(item: Any) -> Any:
    def pointer(typing: Any, address: Any) -> Any:  # noqa: ARG001 - as Numba calls it
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(signature.return_type)
            return builder.inttoptr(arguments[0], kind)

        return cast(Any, types.CPointer)(item)(types.int64), generate

    return intrinsic(pointer)


# What lies from an address on, by its place; nothing checks how much there is.
words_at: Callable[[int], Words] = _pointer_to(types.int64)
bytes_at: Callable[[int], npt.NDArray[np.uint8]] = _pointer_to(types.uint8)
bounds_at: Callable[[int], npt.NDArray[np.int32]] = _pointer_to(types.int32)


def _cast(to: Any, given: Any) -> Any:
    def convert(typing: Any, value: Any) -> Any:  # noqa: ARG001 - as Numba calls it
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

        return to(given), generate

    return intrinsic(convert)


real: Callable[[int], float] = _cast(types.float64, types.int64)
bits: Callable[[float], int] = _cast(types.int64, types.float64)
