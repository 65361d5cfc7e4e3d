"""The tensor table: names, dtypes and shapes of the arrays in a frame."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from flwr_caesar.frozen import frozen

from .errors import CodecError

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

DTYPE_CODES = {
    "bool": 0,
    "uint8": 1,
    "int8": 2,
    "uint16": 3,
    "int16": 4,
    "uint32": 5,
    "int32": 6,
    "uint64": 7,
    "int64": 8,
    "float16": 9,
    "bfloat16": 10,
    "float32": 11,
    "float64": 12,
}
_DTYPE_NAMES = {code: name for name, code in DTYPE_CODES.items()}
FLOAT_DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
_MAX_NDIM = 32
_MAX_TENSORS = 1 << 16
_MAX_TENSOR_BYTES = 1 << 62


@lru_cache(maxsize=64)
def to_dtype(name: str) -> np.dtype[Any]:
    """Return the little-endian numpy dtype of a wire dtype name."""
    if name == "bfloat16":
        import ml_dtypes  # only models that use bfloat16 pay for this import

        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype
    return np.dtype(name).newbyteorder("<")


@lru_cache(maxsize=64)
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return ``dtype.name``, which numpy puts together anew each time."""
    return str(dtype.name)


@frozen
class TensorSpec:
    """Name, dtype and shape of one tensor.

    Parameters
    ----------
    name : str
        Name in the model, at most 65,535 UTF-8 bytes.
    dtype : str
        One of `DTYPE_CODES`.
    shape : tuple of int
        Dimensions; ``()`` is a scalar, a zero is an empty tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @cached_property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return to_dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.dtype in FLOAT_DTYPES


@frozen
class Layout:
    """An ordered table of tensors, named on the wire by its digest."""

    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, arrays: Arrays) -> Layout:
        """Describe `arrays` in their order.

        Raises
        ------
        CodecError
            If a dtype is not one of `DTYPE_CODES` (complex, object, text).
        """
        return _described(
            tuple((n, dtype_name(a.dtype), tuple(a.shape)) for n, a in arrays.items())
        )

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self.tensors)

    @cached_property
    def num_params(self) -> int:
        """Elements of all tensors."""
        return sum(spec.size for spec in self.tensors)

    @cached_property
    def digest(self) -> bytes:
        """First 16 bytes of the SHA-256 of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).digest()[:16]

    def same_shapes(self, other: Layout) -> bool:
        """Whether both name the same tensors with the same shapes, in order."""
        return [(s.name, s.shape) for s in self.tensors] == [
            (s.name, s.shape) for s in other.tensors
        ]

    def to_bytes(self) -> bytes:
        """Serialise the table (see docs/wire-format.md, "Tensor table")."""
        if len(self.tensors) > _MAX_TENSORS:
            raise CodecError(f"{len(self.tensors)} tensors, at most {_MAX_TENSORS}")
        parts = [struct.pack("<I", len(self.tensors))]
        for spec in self.tensors:
            try:
                name = spec.name.encode()
            except UnicodeEncodeError as err:
                raise CodecError(f"tensor name {spec.name!r} is not Unicode") from err
            if len(name) > 0xFFFF:
                raise CodecError(f"tensor name of {len(name)} bytes is too long")
            if len(spec.shape) > _MAX_NDIM:
                raise CodecError(f"tensor {spec.name!r} has {len(spec.shape)} axes")
            parts.append(struct.pack("<H", len(name)))
            parts.append(name)
            parts.append(struct.pack("<BB", DTYPE_CODES[spec.dtype], len(spec.shape)))
            parts.append(struct.pack(f"<{len(spec.shape)}Q", *spec.shape))
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Layout:
        """Parse a tensor table; allocates in proportion to `data` only.

        Raises
        ------
        CodecError
            If the table is truncated, repeats a name, or is otherwise malformed.
        """
        try:
            (count,) = struct.unpack_from("<I", data)
            if count > _MAX_TENSORS:
                raise CodecError(f"tensor table claims {count} tensors")
            offset = 4
            specs: dict[str, TensorSpec] = {}
            for _ in range(count):
                (length,) = struct.unpack_from("<H", data, offset)
                offset += 2
                raw = data[offset : offset + length]
                if len(raw) != length:
                    raise CodecError("tensor table is truncated")
                name = raw.decode()
                offset += length
                code, ndim = struct.unpack_from("<BB", data, offset)
                offset += 2
                if code not in _DTYPE_NAMES or ndim > _MAX_NDIM or name in specs:
                    raise CodecError(f"tensor table entry {name!r} is malformed")
                shape = struct.unpack_from(f"<{ndim}Q", data, offset)
                offset += 8 * ndim
                # An empty tensor may still have axes too long for any array library.
                if 8 * math.prod(max(dim, 1) for dim in shape) > _MAX_TENSOR_BYTES:
                    raise CodecError(f"tensor {name!r} claims shape {shape}")
                specs[name] = TensorSpec(name, _DTYPE_NAMES[code], shape)
        except (struct.error, UnicodeDecodeError) as err:
            raise CodecError(f"tensor table is malformed: {err}") from err
        if offset != len(data):
            raise CodecError("tensor table has trailing bytes")
        return cls(tuple(specs.values()))


@lru_cache(maxsize=16)
def _described(facts: tuple[tuple[str, str, tuple[int, ...]], ...]) -> Layout:
    """Return the layout of these tensors, with what it has found out of itself.

    A message asks several times for the layout of one model.
    """
    for name, dtype, _ in facts:
        if dtype not in DTYPE_CODES:
            raise CodecError(
                f"tensor {name!r} has dtype {dtype}; supported are "
                f"{', '.join(DTYPE_CODES)}"
            )
    return Layout(tuple(TensorSpec(*each) for each in facts))


def other_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Return in words that a trained tensor has not the model's shape, and a remedy."""
    return (
        f"tensor {name!r} has shape {found}, and {expected} in the model: all devices "
        "train tensors of the same shapes; give LoRA adapters one rank, or fill those "
        "of a lower rank up with zeros before the app returns them"
    )


def first_difference(expected: Layout, found: Layout) -> str:
    """Return in words the first tensor in which two layouts differ."""
    pairs = zip(expected.tensors, found.tensors, strict=False)
    for want, got in pairs:
        if (want.name, want.shape) != (got.name, got.shape):
            return (
                f"expected {want.name!r} of shape {want.shape}, found {got.name!r} of "
                f"shape {got.shape}"
            )
    longer, what = max(
        (expected.tensors, "is missing"),
        (found.tensors, "is not in the model"),
        key=lambda side: len(side[0]),
    )
    common = min(len(expected.tensors), len(found.tensors))
    if len(longer) == common:
        return "only their types differ"
    return f"{longer[common].name!r} {what}"
