"""What Numba does not spell: memory by address, counts of zeros, wide products.

For kernels only: nothing here checks bounds. Kernels hand each other addresses and not arrays,
because Numba counts references at each call, which costs more than reading a byte. Whoever calls
the outermost kernel keeps the arrays alive. Little-endian machines are taken for granted.
"""

# ruff: noqa: ARG001 - the arguments of an intrinsic and of its `codegen` are fixed by Numba

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

_BYTE, _HALF, _WORD, _WIDE = (ir.IntType(bits) for bits in (8, 32, 64, 128))


# Kernels run without the GIL, and their machine code is kept on disk. Small ones on every
# byte's way are inlined: calls would cost more than what they do.
kernel = njit(nogil=True, cache=True, error_model="numpy")
inlined = njit(nogil=True, cache=True, error_model="numpy", forceinline=True)


# Any, because a checker takes what Numba calls int64 and uint64 for different things.
def _instruction(define: Callable[..., Any]) -> Callable[..., Any]:
    made: Callable[..., Any] = intrinsic(define)
    return made


def _pointer(builder: Any, address: Any, index: Any, type_: Any) -> Any:
    offset = builder.mul(index, ir.Constant(_WORD, type_.width // 8))
    return builder.inttoptr(builder.add(address, offset), type_.as_pointer())


def _load(builder: Any, args: Any, type_: Any) -> Any:
    return builder.load(_pointer(builder, args[0], args[1], type_), align=1)


def _store(context: Any, builder: Any, args: Any, type_: Any) -> Any:
    value = args[2] if type_ == _WORD else builder.trunc(args[2], type_)
    builder.store(value, _pointer(builder, args[0], args[1], type_), align=1)
    return context.get_dummy_value()


@_instruction
def address(typingctx: Any, array: Any) -> Any:
    """Where the elements of an array lie, as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view: Any = make_array
        return builder.ptrtoint(view(array)(context, builder, args[0]).data, _WORD)

    return types.int64(array), codegen


@_instruction
def load(typingctx: Any, base: Any, index: Any) -> Any:
    """The byte at `base + index`, as int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args, _BYTE), _WORD)

    return types.int64(types.int64, types.int64), codegen


@_instruction
def load8(typingctx: Any, base: Any, index: Any) -> Any:
    """The eight bytes from `base + index` on as uint64, the first one lowest."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.add(args[0], args[1])
        return _load(builder, (place, ir.Constant(_WORD, 0)), _WORD)

    return types.uint64(types.int64, types.int64), codegen


@_instruction
def load_word(typingctx: Any, base: Any, index: Any) -> Any:
    """Element `index` of the int64 at `base`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, args, _WORD)

    return types.int64(types.int64, types.int64), codegen


@_instruction
def store(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
    """Write the lowest byte of `value` at `base + index`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _store(context, builder, args, _BYTE)

    return types.void(types.int64, types.int64, types.int64), codegen


@_instruction
def store8(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
    """Write the eight bytes of a uint64 from `base + index` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.add(args[0], args[1])
        return _store(context, builder, (place, ir.Constant(_WORD, 0), args[2]), _WORD)

    return types.void(types.int64, types.int64, types.uint64), codegen


@_instruction
def store_half(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
    """Set element `index` of the int32 at `base`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _store(context, builder, args, _HALF)

    return types.void(types.int64, types.int64, types.int64), codegen


@_instruction
def store_word(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
    """Set element `index` of the int64 at `base`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _store(context, builder, args, _WORD)

    return types.void(types.int64, types.int64, types.int64), codegen


@_instruction
def zeros_below(typingctx: Any, word: Any) -> Any:
    """How many zero bits lie below the lowest one of a uint64; 64 for zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@_instruction
def zeros_above(typingctx: Any, word: Any) -> Any:
    """How many zero bits lie above the highest one of a uint64; 64 for zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@_instruction
def product_high(typingctx: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = builder.mul(builder.zext(args[0], _WIDE), builder.zext(args[1], _WIDE))
        return builder.trunc(builder.lshr(wide, ir.Constant(_WIDE, 64)), _WORD)

    return types.uint64(types.uint64, types.uint64), codegen
