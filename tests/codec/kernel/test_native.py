"""The compiled kernel does what numpy does: the same bytes, values and refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError, kernel
from flwr_caesar.codec.coding import rans
from flwr_caesar.codec.coding.rans import decode_symbols, encode_symbols

Array = np.ndarray[Any, Any]
NATIVE = kernel.native

pytestmark = pytest.mark.skipif(NATIVE is None, reason=kernel.in_use)


@contextmanager
def numpy_loops() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "native", None)
        yield


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call makes, or with which error it ends."""
    try:
        return call()
    except CodecError as err:
        return type(err), str(err)


def same(call: Callable[[], Any]) -> Any:
    """Return what a call makes, after comparing it with what numpy makes."""
    found = outcome(call)
    with numpy_loops():
        expected = outcome(call)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
    else:
        assert found == expected
    return found


def draw_symbols(n: int, scale: float, contexts: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    context = rng.integers(0, contexts, n).astype(np.uint8)
    spread = np.abs(rng.laplace(size=n)) * scale * 2.0 ** (context % 16 / 4)
    return np.minimum(spread, 511).astype(np.uint16), context


def check_round_trip(symbols: Array, context: Array, contexts: int) -> None:
    data = same(lambda: encode_symbols(symbols, context, contexts))
    found = same(lambda: decode_symbols(data, context, contexts))
    assert (found == symbols).all()


@settings(max_examples=80)
@given(
    n=st.one_of(st.integers(0, 300), st.integers(0, 40_000)),
    scale=st.sampled_from([0.01, 0.3, 2.0, 20.0, 300.0]),
    contexts=st.sampled_from([1, 2, 5, 40, 256]),
    seed=st.integers(0, 1000),
)
def test_symbols_become_the_same_bytes(n, scale, contexts, seed):
    symbols, context = draw_symbols(n, scale, contexts, seed)
    check_round_trip(symbols, context, contexts)


@pytest.mark.parametrize("n", [150_000, 700_000])
def test_many_lanes_in_two_stages(n):
    symbols, context = draw_symbols(n, 2.0, 20, 1)
    check_round_trip(symbols, context, 20)


@pytest.mark.parametrize("lanes", [1, 2, 9, 13, 200])
def test_any_number_of_lanes(lanes, monkeypatch):
    symbols, context = draw_symbols(9 * lanes + 5, 3.0, 7, 2)
    for plan in (lanes, 1, 0), (lanes, lanes, len(symbols) // 2):
        monkeypatch.setattr(rans, "_choose_lanes", lambda n, bits, plan=plan: plan)
        check_round_trip(symbols, context, 7)


@pytest.mark.parametrize(("n", "scale"), [(400, 2.0), (30_000, 2.0), (30_000, 300.0)])
def test_hostile_symbols_are_refused_with_the_same_words(n, scale):
    symbols, context = draw_symbols(n, scale, 6, 3)
    good = encode_symbols(symbols, context, 6)
    rng = np.random.default_rng(4)
    kinds = set()
    for trial in range(150):
        bad = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            first = 0 if trial % 3 else len(bad) // 2
            bad[int(rng.integers(first, len(bad)))] = int(rng.integers(256))
        if trial % 7 == 0:
            bad = bad[: int(rng.integers(len(bad)))]
        found = same(lambda bad=bad: decode_symbols(bytes(bad), context, 6))
        kinds.add(found[1] if isinstance(found, tuple) else "decoded")
    assert len(kinds) > 2


def test_a_context_that_no_symbol_uses_may_have_a_table_or_not():
    symbols, context = draw_symbols(500, 2.0, 3, 5)
    for unused in (np.uint8(0), np.uint8(200)):
        at = np.where(context == 0, unused, context)
        check_round_trip(symbols, at, 256)


def test_threads_decode_side_by_side():
    """The lock is released, and no call shares memory with another."""
    cases = [draw_symbols(60_000, 2.0, 9, seed) for seed in range(6)]
    frames = [encode_symbols(*case, 9) for case in cases]
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(
                lambda case: decode_symbols(case[0], case[1][1], 9),
                [(f, c) for f, c in zip(frames, cases, strict=True)] * 3,
            )
        )
    for symbols, (expected, _) in zip(found, cases * 3, strict=True):
        assert (symbols == expected).all()


def zeros(n: int, dtype: str) -> Array:
    return np.zeros(n, dtype)


def pull_arguments() -> list[Any]:
    frequencies = np.full((1, 4), 4096, np.uint16)
    states = np.full(2, 1 << 16, np.uint32)
    return [states, zeros(3, "u2"), zeros(9, "u2"), zeros(9, "u1"), frequencies, 4]


def push_arguments() -> list[Any]:
    table = np.zeros(512, np.uint32)
    table[:4] = 4096 << 16 | np.arange(4) * 4096
    states = np.full(2, 1 << 16, np.uint32)
    return [states, zeros(9, "u2"), zeros(9, "u1"), table, zeros(10, "u2")]


ARGUMENTS = {"push": push_arguments, "pull": pull_arguments}
WRONG = [
    ("push", 0, zeros(0, "u4")),
    ("push", 1, zeros(8, "u2")),
    ("push", 2, zeros(8, "u1")),
    ("push", 2, np.full(9, 1, np.uint8)),
    ("push", 1, np.full(9, 4, np.uint16)),
    ("push", 1, np.full(9, 600, np.uint16)),
    ("push", 3, zeros(511, "u4")),
    ("push", 3, np.full(512, 0xFFFFFFFF, np.uint32)),
    ("push", 4, zeros(9, "u2")),
    ("pull", 0, zeros(0, "u4")),
    ("pull", 3, zeros(8, "u1")),
    ("pull", 3, np.full(9, 1, np.uint8)),
    ("pull", 4, np.full((1, 4), 4095, np.uint16)),
    ("pull", 4, np.full((1, 4), 65535, np.uint16)),
    ("pull", 4, zeros(4, "u2")),
    ("pull", 4, zeros(3, "u2")),
    ("pull", 5, 0),
    ("pull", 5, 513),
    ("pull", 5, -1),
]


@pytest.mark.parametrize(
    ("name", "place", "value"), WRONG, ids=[f"{i}" for i in range(len(WRONG))]
)
def test_wrong_lengths_and_contents_are_errors_and_reach_no_memory(name, place, value):
    function = getattr(NATIVE, name)
    arguments = ARGUMENTS[name]()
    assert function(*arguments) >= 0
    arguments = ARGUMENTS[name]()
    arguments[place] = value
    with pytest.raises(ValueError, match=r"do not match|out of range"):
        function(*arguments)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_other_kinds_of_arguments_are_errors(name):
    function = getattr(NATIVE, name)
    good = ARGUMENTS[name]()
    with pytest.raises(TypeError, match="arguments"):
        function(*good[:-1])
    for place, value in enumerate(good):
        for wrong in None, zeros(9, "f8"), zeros(18, "u4")[::2], "text", 2**70:
            arguments = [*good]
            arguments[place] = wrong
            with pytest.raises((TypeError, ValueError, BufferError, OverflowError)):
                function(*arguments)
        if isinstance(value, np.ndarray):
            swapped = value.astype(value.dtype.newbyteorder())
            arguments = [*good]
            arguments[place] = swapped
            if value.dtype.itemsize > 1:
                with pytest.raises(TypeError, match="kind"):
                    function(*arguments)


def test_what_is_written_has_to_be_writable():
    for name, make in ARGUMENTS.items():
        arguments = make()
        arguments[0].flags.writeable = False
        with pytest.raises((BufferError, ValueError)):
            getattr(NATIVE, name)(*arguments)
