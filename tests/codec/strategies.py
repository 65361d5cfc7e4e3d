"""Hypothesis strategies for the arrays that a model may hold."""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec.contract.layout import DTYPE_CODES, FLOAT_DTYPES

Array = np.ndarray[Any, Any]

names = st.text(
    st.characters(codec="utf-8"), min_size=0, max_size=12
) | st.sampled_from(["conv1.weight", "größe", "重み", "🙂", "a/b", "\0"])

shapes = st.sampled_from([(), (0,), (1,), (3, 0, 2), (7,), (5, 3), (2, 3, 5)])

dtypes = st.sampled_from(sorted(DTYPE_CODES))


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the native numpy dtype of a wire dtype name."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


_WIDTHS: dict[str, Literal[16, 32, 64]] = {
    "bfloat16": 32,
    "float16": 16,
    "float32": 32,
    "float64": 64,
}


def _elements(dtype: str) -> st.SearchStrategy[Any] | None:
    if dtype not in FLOAT_DTYPES:
        return None
    width = _WIDTHS[dtype]
    largest = {
        "bfloat16": 255 * 2.0**120,
        "float16": 65504.0,
        "float32": float(np.finfo(np.float32).max),
        "float64": float(np.finfo(np.float64).max),
    }[dtype]
    bounded = st.floats(-largest, largest, width=width)
    special = [-0.0, 0.0, 5e-8, float(np.float32(1e-45)), largest]
    usable = [x for x in special if float(np.array(x, f"f{width // 8}")) == x]
    return bounded | st.sampled_from(usable)


@st.composite
def arrays(
    draw: st.DrawFn,
    dtype: st.SearchStrategy[str] = dtypes,
    shape: st.SearchStrategy[tuple[int, ...]] = shapes,
) -> Array:
    """Draw an array in one of the memory layouts that numpy users produce."""
    name, dims = draw(dtype), draw(shape)
    base = np.dtype(np.float32) if name == "bfloat16" else np.dtype(name)
    array = draw(hnp.arrays(base, dims, elements=_elements(name))).astype(
        numpy_dtype(name)
    )
    form = draw(st.sampled_from(["C", "F", "strided", "reversed", "big", "readonly"]))
    if form == "F":
        return np.asfortranarray(array).reshape(array.shape)
    if form == "big" and name != "bfloat16":
        return array.astype(array.dtype.newbyteorder(">"))
    if form == "reversed":
        return array[::-1] if array.ndim else array
    if form == "strided" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    if form == "readonly":
        array.setflags(write=False)
    return array


def models(
    array: st.SearchStrategy[Array] | None = None, max_size: int = 5
) -> st.SearchStrategy[dict[str, Array]]:
    """Draw named arrays, possibly none."""
    return st.dictionaries(
        names, arrays() if array is None else array, max_size=max_size
    )


def bits(array: Array) -> tuple[str, tuple[int, ...], bytes]:
    """Return dtype, shape and little-endian bytes: equal only if bit-exact."""
    little = (
        array
        if array.dtype.kind == "V"
        else array.astype(array.dtype.newbyteorder("<"))
    )
    return array.dtype.name, array.shape, little.tobytes()


def gaussian_model(seed: int = 0, scale: int = 1) -> dict[str, Array]:
    """Return a small network's worth of tensors of every dtype."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.normal(0, 0.05, shape)

    return {
        "conv.weight": normal(16 * scale, 8, 3, 3).astype(np.float32),
        "conv.bias": normal(16 * scale).astype(np.float32),
        "bn.num_batches_tracked": np.array(17, np.int64),
        "half": normal(1100 * scale).astype(np.float16),
        "brain": normal(1100 * scale).astype(ml_dtypes.bfloat16),
        "double": normal(1031 * scale),
        "mask": rng.random(33) < 0.5,
        "bytes": rng.integers(0, 255, 9, np.uint8),
        "empty": np.zeros((3, 0, 2), np.float32),
        "scalar": np.array(-0.0, np.float32),
        "odd": normal(37, 29).astype(np.float32),
    }
