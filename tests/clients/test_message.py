"""The update takes the place of the trained model, and is the same as `difference`."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.clients.message import subtract
from flwr_caesar.codec import CodecError, difference
from flwr_caesar.codec.contract.layout import Arrays, to_dtype

NAN, INFINITY = float("nan"), float("inf")
LONG = 1 << 17  # of several pieces
DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "bool")


def model(dtype: str, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    long = (10 * rng.normal(size=LONG + 5)).astype(to_dtype(dtype))
    shapes = {"cube": (3, 4, 5), "number": (), "nothing": (0, 3)}
    return {"long": long} | {
        name: np.array(10 * rng.normal(size=shape)).astype(to_dtype(dtype))
        for name, shape in shapes.items()
    }


def same(found: Arrays, expected: Arrays) -> bool:
    return list(found) == list(expected) and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(found.values(), expected.values(), strict=True)
    )


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_subtracted_is_the_difference(dtype: str, overwrite: bool) -> None:
    new, old = model(dtype, 1), model(dtype, 2)
    expected = difference(model(dtype, 1), old)
    update = dict(new)
    subtract(update, old, overwrite=overwrite)
    assert same(update, expected)
    assert same(old, model(dtype, 2))
    if not overwrite:
        assert same(new, model(dtype, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_update_takes_the_memory_of_the_model(dtype: str) -> None:
    new, old = model(dtype, 1), model(dtype, 2)
    update = dict(new)
    subtract(update, old, overwrite=True)
    assert all(update[name] is new[name] for name in new)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (NAN, NAN),
        (-INFINITY, -INFINITY),
        (0.0, INFINITY),
        (3e38, -3e38),
    ],
)
def test_what_is_no_number_gets_the_care_of_difference(new: float, old: float) -> None:
    trained, before = model("float32", 1), model("float32", 2)
    trained["long"][-1], before["long"][-1] = new, old  # after pieces that are numbers
    expected = difference({k: a.copy() for k, a in trained.items()}, before)
    subtract(trained, before, overwrite=True)
    assert same(trained, expected)


def test_arrays_that_do_not_fit_are_left_alone() -> None:
    new, old = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float64)
    fixed = np.ones((2, 3), np.float32)
    fixed.flags.writeable = False
    across = np.ones((3, 2), np.float32).T
    update = {"wide": new, "fixed": fixed, "across": across}
    base = {"wide": old, "fixed": np.zeros_like(new), "across": np.zeros_like(new)}
    subtract(update, base, overwrite=True)
    assert all((array == 1).all() for array in update.values())
    assert update["fixed"] is not fixed
    assert update["across"] is not across


def test_a_new_nan_is_refused() -> None:
    new, old = model("float32", 1), model("float32", 2)
    new["long"][LONG] = NAN
    with pytest.raises(CodecError, match="'long' holds NaN"):
        subtract(new, old, overwrite=True)
