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

from flwr_caesar.codec import CodecError, get_codec, kernel
from flwr_caesar.codec.coding import rans
from flwr_caesar.codec.coding.compact_symbols import (
    from_compact,
    pack_raw,
    to_compact,
)
from flwr_caesar.codec.coding.contexts import (
    ContextMap,
    _slice_sums,
    fit_scales,
    scale_classes,
)
from flwr_caesar.codec.coding.counts import count_symbols
from flwr_caesar.codec.coding.integers import (
    MAX_MAGNITUDE,
    decode_integers,
    encode_integers,
    to_symbols,
)
from flwr_caesar.codec.coding.lanes import encoder_table, push
from flwr_caesar.codec.coding.rans import decode_symbols, encode_symbols
from flwr_caesar.codec.coding.tables import normalise, quantise_counts
from flwr_caesar.codec.conformance.suite import sample_arrays
from flwr_caesar.codec.contract.energy import energy
from flwr_caesar.codec.quantisers.pieces import Pieces
from flwr_caesar.codec.quantisers.quantise import (
    lattice_values,
    quantise_dead_zone,
    squared_error,
)
from flwr_caesar.codec.quantisers.step_search import Quantiser, Step, StepSearch

from ..samples import CONFIGS

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


@pytest.mark.parametrize("lanes", [8, 9, 31, 200])
@pytest.mark.parametrize("words", [0, 7, 8, 60, None])
def test_lanes_in_groups_are_read_as_one_by_one(lanes, words):
    """What AVX2 does where the processor has it, and a compiler's C elsewhere."""
    symbols, context = draw_symbols(9 * lanes + 5, 3.0, 7, 2)
    symbols %= 200
    codes = quantise_counts(count_symbols(symbols, context, 7))
    frequencies = normalise(codes).astype(np.uint16)
    states = np.full(lanes, 1 << 16, np.uint32)
    pushed: list[Array] = []
    push(states, pushed, symbols, context, encoder_table(codes))
    stack = np.concatenate(pushed[::-1])[:words]
    outcomes = []
    for in_groups in 0, 1:
        found, own = np.zeros_like(symbols), states.copy()
        read = NATIVE.pull(
            own, stack, found, context, frequencies, frequencies.shape[1], in_groups
        )
        outcomes.append((read, found.tobytes(), own.tobytes()) if read >= 0 else read)
        assert words is not None or (found == symbols).all()
    assert outcomes[0] == outcomes[1]


def table_of(rows: list[list[int]]) -> Array:
    """Return the encoder's table of frequencies, of symbols from 0 on."""
    table = np.zeros((len(rows), 512), np.uint32)
    for row, frequencies in enumerate(rows):
        own = np.array(frequencies)
        first = own.cumsum() - own
        table[row, : len(own)] = (own << 16) | (first & 0xFFFF)
    return table.reshape(-1)


FREQUENCIES = [
    [1 << 14],
    [1, (1 << 14) - 1],
    [(1 << 14) - 1, 1],
    [1, 1, 1, 16_381],
    [8191, 8193],
    [2, 3, 5, 7, 11, 13, 127, 4096, 12_120],
]


@pytest.mark.parametrize("lanes", [1, 7, 8, 9, 16, 31, 200])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_lanes_in_groups_are_written_as_one_by_one(lanes, rows):
    """Of any state, and of any frequency, the least and the largest among them."""
    rng = np.random.default_rng([lanes, rows])
    n = rows * lanes - lanes // 3
    contexts = rng.integers(0, len(FREQUENCIES), n).astype(np.uint8)
    lengths = np.array([len(row) for row in FREQUENCIES])[contexts]
    symbols = (rng.random(n) * lengths).astype(np.uint16)
    states = rng.integers(0, 1 << 32, lanes).astype(np.uint32)
    states[rng.random(lanes) < 0.3] = 0xFFFFFFFF
    outcomes = []
    for in_groups in 0, 1:
        own, words = states.copy(), np.zeros(n + 1, np.uint16)
        count = NATIVE.push(
            own, symbols, contexts, table_of(FREQUENCIES), words, in_groups
        )
        outcomes.append((own.tobytes(), words[n + 1 - count :].tobytes()))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("place", [0, 20, 63])
@pytest.mark.parametrize("frequency", [0, (1 << 14) + 1, 0xFFFF])
def test_in_groups_a_symbol_without_a_frequency_is_refused(place, frequency):
    table = table_of([[1 << 14, frequency]])
    symbols, contexts = np.zeros(64, np.uint16), np.zeros(64, np.uint8)
    symbols[place] = 1
    for in_groups in 0, 1:
        states, words = np.full(8, 1 << 16, np.uint32), np.zeros(65, np.uint16)
        with pytest.raises(ValueError, match="out of range"):
            NATIVE.push(states, symbols, contexts, table, words, in_groups)


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


shapes = st.tuples(*3 * [st.one_of(st.integers(1, 4), st.integers(1, 140))])


def draw_floats(shape: Any, seed: int) -> Array:
    """Return values of very different magnitudes, and some that are 0 or negative 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * np.exp(rng.normal(0, 4, shape))
    x[rng.random(shape) < 0.1] = 0
    return (x * rng.choice([1.0, -1.0], shape)).astype(np.float32)


def draw_integers(n: int, bits: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    width = rng.integers(0, bits + 1, n)
    values = np.sign(rng.normal(size=n)) * np.floor(rng.random(n) * 2.0**width)
    return values.astype(np.int32)


@settings(max_examples=60)
@given(
    n=st.one_of(st.integers(0, 50), st.integers(1000, 5000)),
    bits=st.integers(0, 31),
    narrow=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_integers_of_any_size_become_the_same_bytes(n, bits, narrow, seed):
    values = draw_integers(n, min(bits, 15) if narrow else bits, seed)
    if narrow:
        values = values.astype(np.int16)
    elif n > 2 and bits == 31:
        values[:2] = MAX_MAGNITUDE, -MAX_MAGNITUDE
    context = np.arange(n).astype(np.uint8) % 3
    assert (same(lambda: to_symbols(values)) <= 511).all()
    data = same(lambda: encode_integers(values, context, 3))
    assert (same(lambda: decode_integers(data, context, 3)) == values).all()


@given(st.integers(0, 300), st.integers(1, 31), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_compact_symbols_become_the_same_integers(n, bits, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-(1 << bits) + 1, 1 << bits, n).astype(np.int32)

    def made() -> list[Any]:
        symbols, far = to_compact(values)
        raw = b"ab" + pack_raw([far]) + b"c"
        found, end = from_compact(symbols, raw, 2)
        assert found.tolist() == values.tolist()
        assert end == len(raw) - 1
        return [symbols.tobytes(), far.tobytes(), raw]

    same(made)


@pytest.mark.parametrize("raw", [b"", bytes(3), bytes(4), b"\xff" * 4])
def test_hostile_compact_symbols_are_refused_with_the_same_words(raw):
    symbols = np.array([5, 127], np.uint16)

    def read() -> Any:
        found, end = from_compact(symbols, raw, 0)
        return found.tolist(), end

    same(read)


@pytest.mark.parametrize("bits", [3, 9, 31])
def test_hostile_integers_are_refused_with_the_same_words(bits):
    values = draw_integers(700, bits, 1)
    context = np.arange(700).astype(np.uint8) % 3
    good = encode_integers(values, context, 3)
    rng = np.random.default_rng(bits)
    kinds = set()
    for trial in range(300):
        bad = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(len(bad)))] = int(rng.integers(256))
        if trial % 5 == 0:
            bad = bad[: int(rng.integers(len(bad)))]
        if trial % 7 == 0:
            bad += bytes(int(rng.integers(1, 9)))
        found = same(lambda bad=bad: decode_integers(bytes(bad), context, 3))
        kinds.add(found[1] if isinstance(found, tuple) else "decoded")
    assert len(kinds) > 2


def test_a_symbol_above_all_integers_is_read_alike(monkeypatch):
    """Of a zigzag of more than 32 bits the frame is refused."""
    for symbol in (479, 480, 495, 496, 511):
        symbols, context = np.full(40, symbol, np.uint16), np.zeros(40, np.uint8)
        packed = encode_symbols(symbols, context, 1)
        width = (symbol - 64) // 16 + 2
        raw = np.random.default_rng(symbol).bytes((40 * width + 7) // 8)
        data = len(packed).to_bytes(4, "little") + packed + raw
        found = same(lambda data=data, at=context: decode_integers(data, at, 1))
        assert isinstance(found, tuple) == (symbol >= 480)


@settings(max_examples=40)
@given(n=st.integers(0, 9000), contexts=st.sampled_from([1, 7, 96, 288]))
def test_counts_are_the_same(n, contexts):
    rng = np.random.default_rng(n)
    symbols = rng.geometric(0.3, n).astype(np.uint16) % 512
    for kind in (np.uint8, np.uint16):
        at = rng.integers(0, min(contexts, 256), n).astype(kind)
        counts = same(lambda at=at: count_symbols(symbols, at, contexts))
        assert counts.sum() == n


@settings(max_examples=100)
@given(shape=shapes, seed=st.integers(0, 1000))
def test_scales_and_classes_are_the_same(shape, seed):
    integers = draw_integers(np.prod(shape), 9, seed).astype(np.float32).reshape(shape)
    for x in draw_floats(shape, seed), integers:
        for own in x, x[::-1], np.asfortranarray(x):
            scales = same(lambda own=own: fit_scales(own, np.float32(0.3)))
            sums = same(lambda own=own: np.concatenate(_slice_sums(own)))
            assert sums.min() >= 0
        wide = (scales * 3).astype(np.int16)
        part = slice(None), slice(shape[1] // 2, None), slice(None)
        for own in scales, wide:
            for at in (slice(None),) * 3, part:
                same(lambda own=own, at=at: scale_classes(own, shape, at))


@settings(max_examples=60)
@given(shape=shapes, bits=st.sampled_from([2, 9, 31]), seed=st.integers(0, 1000))
def test_sums_of_integers_are_the_same(shape, bits, seed):
    x = draw_integers(np.prod(shape), bits, seed).astype(np.int32).reshape(shape)
    x[x % 3 == 0] = 0
    same(lambda: np.concatenate(_slice_sums(x)))


@pytest.mark.parametrize("width", [1, 5, 40])
def test_contexts_are_the_same(width):
    classes = np.random.default_rng(width).integers(0, 96, (7, 5, 3)).astype(np.uint8)
    histories = (classes % 3).astype(np.uint8)
    for seen in None, histories:
        own = ContextMap(1, 3, width, seen is not None)
        same(lambda own=own, seen=seen: own.contexts(classes, seen))


@settings(max_examples=60)
@given(
    n=st.integers(0, 3000),
    step=st.sampled_from([2.0**-149, 1e-12, 0.1, 7.0, 1e30]),
    dead_zone=st.sampled_from([0.5, 0.6600001, 0.95, 1.0]),
    odd=st.sampled_from([0.0, np.nan, np.inf, -np.inf, 3e38, -1.2e8, 2.0**-149]),
)
def test_indices_are_the_same(n, step, dead_zone, odd):
    x = draw_floats(n, n)
    x[n // 2 : n // 2 + 1] = odd
    same(lambda: quantise_dead_zone(x, step, dead_zone))
    same(lambda: np.array(squared_error(x, step, dead_zone)))
    for own in x, x.astype(np.float64) * 3, x[::2]:
        same(lambda own=own: np.array(energy(own)))


@settings(max_examples=40)
@given(
    n=st.integers(1, 2000),
    quarter=st.integers(-40, 40),
    dead_zone=st.sampled_from([0.5, 0.7, 0.95]),
    largest=st.sampled_from([1.0, 1e9]),
)
def test_measurements_are_the_same(n, quarter, dead_zone, largest):
    x = draw_floats(n, n)
    x[0] = largest
    classes = (np.arange(n) % 96).astype(np.uint8)
    quantiser = Quantiser(Step.of(quarter), dead_zone)
    same(lambda: StepSearch(Pieces([x]), classes, Step(4, 0)).measure(quantiser))


def test_what_a_file_has_at_an_odd_place_is_summed():
    x = np.frombuffer(b"." + draw_floats(99, 1).tobytes(), np.float32, offset=1)
    assert not x.flags.aligned
    assert same(lambda: np.array(energy(x))) > 0


@pytest.mark.parametrize("exponent", [-160, -149, -127, -126, -5, 0, 90, 127, 128])
def test_lattice_values_are_the_same(exponent):
    with np.errstate(over="ignore"):
        for multiple in 4, 7:
            same(
                lambda own=multiple: lattice_values(
                    draw_integers(70_000, 31, 1), exponent, own
                )
            )


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_frames_of_every_codec_are_the_same(number):
    codec = get_codec(CONFIGS[number])
    state = held = None
    for seed in range(2):
        arrays = sample_arrays(np.random.default_rng(seed))
        frame, after = codec.encode(arrays, state)
        with numpy_loops():
            assert codec.encode(arrays, state)[0] == frame
            expected, _ = codec.decode(frame, held)
        found, held = codec.decode(frame, held)
        state = after
        for name, array in found.items():
            assert array.tobytes() == expected[name].tobytes()


def unaligned(x: Array) -> Array:
    """Return a copy that begins at an odd address, as what is read from a file may."""
    room = np.empty(x.nbytes + 1, np.uint8)[1:]
    found = room.view(x.dtype).reshape(x.shape)
    found[...] = x
    assert not found.flags.aligned
    return found


def test_arrays_of_other_layouts_and_kinds_are_read_alike():
    integers, floats = draw_integers(600, 12, 1), draw_floats(600, 1)
    at = np.arange(600) % 3
    for values in integers, unaligned(integers), integers[::-1], integers.astype("i8"):
        for contexts in at, at.astype(np.uint8)[::-1], at.astype(np.uint16):
            data = same(
                lambda values=values, at=contexts: encode_integers(values, at, 3)
            )
            found = same(lambda data=data, at=contexts: decode_integers(data, at, 3))
            assert (found == values).all()
    for x in unaligned(floats), floats[::-2], floats.astype(np.float64):
        same(lambda x=x: quantise_dead_zone(x, 0.1, 0.6))
        same(lambda x=x: np.array(energy(x)))
        cut = x[:300].reshape(3, 10, 10)
        same(lambda x=cut: np.concatenate(_slice_sums(x)))
