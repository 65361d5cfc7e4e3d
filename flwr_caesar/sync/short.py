"""A residual in 16 bits an element, for half the wear of a device's disk.

A float32 tensor is kept as float16 times a power of two of its own. Of each element
``x`` this drops, each time that an update is made, at most ``ROUNDING |x|``, or
`LEAST_ROUNDING` of the tensor's largest element where that is more;
docs/sync-design.md says what that comes to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.frozen import frozen

LEAST_BYTES = 1 << 20
"""A smaller residual is kept as it is: it saves no wear to write less."""

EXACT_BELOW = 1024
"""Tensors of fewer elements are kept as they are."""

ROUNDING, LEAST_ROUNDING = 2.0**-11, 2.0**-39
"""Largest errors of an element: in parts of itself, and of the tensor's largest."""

MIN_EXPONENT, MAX_EXPONENT = -164, 14
# The largest element becomes 2^14 to 2^15: float16 has 2^16 at most, and room for
# elements 2^29 times smaller before these lose precision.
_TOP = 15
# Between the exponents' biases of float32 and float16, and their mantissas' bits.
_BIAS, _BITS = 112, 13
_BLOCK = 1 << 15  # in the cache of a small processor


@frozen
class Short:
    """A tensor in 16 bits.

    Parameters
    ----------
    values : ndarray of float16
        Its elements divided by ``2**exponent``.
    exponent : int
        From `MIN_EXPONENT` to `MAX_EXPONENT`.
    """

    values: Array
    exponent: int

    def __post_init__(self) -> None:
        known = MIN_EXPONENT <= self.exponent <= MAX_EXPONENT
        if self.values.dtype != np.float16 or not known:
            raise ValueError(f"{self.values.dtype} at 2^{self.exponent} is no residual")

    @classmethod
    def of(cls, array: Array) -> Short | None:
        """Round a float32 tensor; `None` if elements are huge or not numbers at all.

        To nearest, ties to even, as numpy's own conversion does in several times the
        time: the bits of a float32 that is scaled into the range of float16 are those
        of the float16, further up.
        """
        flat = np.ascontiguousarray(array).reshape(-1)
        largest = float(max(flat.max(), -flat.min()))
        exponent = int(np.frexp(largest)[1]) - _TOP if largest else 0
        if exponent > MAX_EXPONENT or not np.isfinite(largest):
            return None
        scale = np.float32(2.0 ** -(_BIAS + exponent))
        short = np.empty(len(flat), np.uint16)
        for start in range(0, len(flat), _BLOCK):
            bits = (flat[start : start + _BLOCK] * scale).view(np.uint32)
            sign = (bits >> 16).astype(np.uint16) & np.uint16(0x8000)
            bits &= np.uint32(0x7FFFFFFF)
            bits += ((bits >> _BITS) & np.uint32(1)) + np.uint32((1 << _BITS - 1) - 1)
            bits >>= np.uint32(_BITS)
            np.bitwise_or(
                bits.astype(np.uint16), sign, out=short[start : start + _BLOCK]
            )
        return cls(short.view(np.float16).reshape(array.shape), exponent)

    def wide(self) -> Array:
        """Return the tensor in float32."""
        array = np.empty(self.values.size, np.float32)
        for part, values in self._pieces():
            array[part] = values
        return array.reshape(self.values.shape)

    def add_to(self, array: Array) -> None:
        """Add the tensor to a contiguous float32 array of its shape, in place."""
        flat = array.reshape(-1)
        with np.errstate(over="ignore"):
            for part, values in self._pieces():
                flat[part] += values

    def _pieces(self) -> Iterator[tuple[slice, Array]]:
        """Yield the elements in float32, some at a time, and which they are."""
        short = self.values.reshape(-1).view(np.uint16)
        scale = np.float32(2.0 ** (_BIAS + self.exponent))
        for start in range(0, len(short), _BLOCK):
            part = slice(start, start + _BLOCK)
            bits = short[part].astype(np.uint32)
            sign = (bits & np.uint32(0x8000)) << np.uint32(16)
            bits &= np.uint32(0x7FFF)
            bits <<= np.uint32(_BITS)
            bits |= sign
            values = bits.view(np.float32)
            values *= scale
            yield part, values


class ShortResidual(Mapping[str, Array]):
    """A residual of which a tensor is widened when it is asked for.

    Parameters
    ----------
    kept : mapping of str to Short or ndarray
        By tensor.
    """

    def __init__(self, kept: Mapping[str, Short | Array]) -> None:
        self.kept = dict(kept)

    @classmethod
    def of(cls, residual: Arrays, *, least_bytes: int | None = None) -> Arrays:
        """Round a residual; what is no float32, small or huge stays as it is.

        Parameters
        ----------
        residual : mapping of str to ndarray
            By tensor.
        least_bytes : int, optional
            A residual of fewer stays as it is; `LEAST_BYTES` by default.
        """
        size = sum(array.nbytes for array in residual.values())
        if size < (LEAST_BYTES if least_bytes is None else least_bytes):
            return residual
        kept: dict[str, Short | Array] = {}
        for name, array in residual.items():
            is_large = array.dtype == np.float32 and array.size >= EXACT_BELOW
            kept[name] = (Short.of(array) if is_large else None) or array
        is_short = any(isinstance(each, Short) for each in kept.values())
        return cls(kept) if is_short else residual

    def __getitem__(self, name: str) -> Array:
        """Return a tensor as it is computed with."""
        kept = self.kept[name]
        return kept.wide() if isinstance(kept, Short) else kept

    def add_to(self, array: Array, name: str) -> bool:
        """Add a tensor that is kept in 16 bits, in place; whether there is one."""
        kept = self.kept.get(name)
        if not isinstance(kept, Short) or array.shape != kept.values.shape:
            return False
        kept.add_to(array)
        return True

    def stored(self, name: str) -> Array:
        """Return a tensor's elements as they are kept."""
        kept = self.kept[name]
        return kept.values if isinstance(kept, Short) else kept

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.kept)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as they are kept."""
        return sum(
            each.values.nbytes if isinstance(each, Short) else each.nbytes
            for each in self.kept.values()
        )
