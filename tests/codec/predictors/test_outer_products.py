"""Products of integers: exact in every order, taken where they save bits, checked."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    get_codec,
    inspect_frame,
)
from flwr_caesar.codec.contract.frame import FrameReader, Section, write_frame
from flwr_caesar.codec.contract.layout import TensorSpec
from flwr_caesar.codec.predictors.outer_products import (
    MAX_RANK,
    Products,
    fit_products,
    has_products,
)
from flwr_caesar.codec.predictors.product_sections import pack_products, read_products

from ..library import Array

SHAPE = 24, 40, 9
STEP = np.float32(0.05)


def of_rank(
    rank: int, shape: tuple[int, int, int] = SHAPE, noise: float = 0.3
) -> Array:
    """Return a tensor of a few strong directions and noise."""
    rng = np.random.default_rng(rank)
    rows, columns = shape[0], shape[1] * shape[2]
    strong = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    matrix = strong + rng.normal(0, noise, (rows, columns))
    return matrix.astype(np.float32).reshape(shape)


def largest() -> Products:
    """Return products whose sum just stays below 2^24."""
    rng = np.random.default_rng(0)
    doublings = np.array([0, 1, 3, 5], np.uint8)
    left = rng.integers(-400, 401, (4, 24), np.int32)
    right = rng.integers(-1000, 1001, (4, 360), np.int32)
    return Products(np.float32(0.37), doublings, left, right)


def whole(products: Products) -> Array:
    """Return the matrix by integers of 64 bits."""
    left = products.left.astype(np.int64) << products.doublings[:, None].astype(
        np.int64
    )
    sums = left.T @ products.right.astype(np.int64)
    return (sums.astype(np.float32) * products.unit).reshape(SHAPE)


@pytest.mark.parametrize(
    "at",
    [
        (slice(None), slice(None), slice(None)),
        (slice(3, 7), slice(None), slice(None)),
        (slice(None, None, 5), slice(None), slice(None)),
        (slice(None), slice(2, 3), slice(1, 8)),
        (slice(23, 24), slice(39, 40), slice(8, 9)),
    ],
)
def test_parts_are_exact(at: tuple[slice, slice, slice]) -> None:
    products = largest()
    assert products.is_exact
    part = products.part(at, SHAPE)
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, whole(products)[at])


def test_what_could_reach_the_limit_is_not_exact() -> None:
    one = np.ones((1, 24), np.int32)
    assert Products(STEP, np.zeros(1, np.uint8), 4095 * one, 4096 * one).is_exact
    assert not Products(STEP, np.zeros(1, np.uint8), 4096 * one, 4096 * one).is_exact
    least = np.full((1, 24), -(1 << 31), np.int32)
    assert not Products(STEP, np.zeros(1, np.uint8), least, least).is_exact


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_what_rows_share_is_found(rank: int) -> None:
    residual = of_rank(rank)
    found = fit_products(residual, STEP, 16)
    assert found is not None
    assert found.is_exact
    assert rank <= len(found.doublings) <= 16
    left = residual - found.part((slice(None),) * 3, SHAPE)  # type: ignore[arg-type]
    assert np.square(left).mean() < 1.1 * 0.3**2


@pytest.mark.parametrize(
    "residual",
    [
        np.zeros(SHAPE, np.float32),
        np.random.default_rng(1).normal(0, 1e-4, SHAPE).astype(np.float32),
        np.full(SHAPE, np.inf, np.float32),
        np.full(SHAPE, np.nan, np.float32),
        np.full(SHAPE, 3e38, np.float32),
    ],
    ids=["zero", "below the step", "infinite", "not a number", "huge"],
)
def test_none_where_they_save_nothing(residual: Array) -> None:
    with np.errstate(all="ignore"):
        assert fit_products(residual, STEP, 16) is None


def test_vectors_and_small_or_narrow_matrices_have_none() -> None:
    assert has_products((64, 128, 1), 1)
    assert not has_products((64, 128, 1), 0)
    assert not has_products((64, 127, 1), 1)
    assert not has_products((7, 4096, 1), 1)
    assert not has_products((4096, 7, 1), 1)
    assert not has_products((1, 1, 1 << 20), 1)


def test_frames_get_shorter_and_keep_their_bound_and_both_sides_in_step() -> None:
    bare = {"id": "error_bounded", "rel": 0.01, "compact": True}
    sizes = []
    for config in (bare, {**bare, "rank": 16}):
        codec = get_codec(config)
        first = {"w": of_rank(4).reshape(24, 40, 3, 3), "b": np.ones(5, np.float32)}
        own = server = CodecState(Layout.of(first))
        sizes.append(0)
        for scale in (1.0, 0.9, -0.5):
            arrays = {n: np.float32(scale) * x for n, x in first.items()}
            arrays["w"] = arrays["w"] + of_rank(3).reshape(24, 40, 3, 3)
            frame, told, own = codec.encode_decoded(arrays, own)
            decoded, server = codec.decode(frame, server)
            bound = float(codec.error_bound(arrays)["w"])
            exact = arrays["w"].astype(np.float64) - decoded["w"]
            assert np.abs(exact).max() <= bound
            np.testing.assert_array_equal(told["w"], decoded["w"])
            assert own.digest == server.digest
            sizes[-1] += len(frame)
    assert sizes[1] < 0.9 * sizes[0]


def test_a_memory_tells_what_is_left_beside_products() -> None:
    """A rest that comes again has its signs from the last one."""
    bare = {"id": "lattice", "nmse": 0.01, "compact": True, "memory": True}
    first = of_rank(3, noise=1.0)
    sizes = []
    for rank in (0, 16):
        codec = get_codec({**bare, "rank": rank})
        state = None
        for scale in (1.0, 0.9):
            arrays = {"w": np.float32(scale) * first}
            frame, _, state = codec.encode_decoded(arrays, state)
        sizes.append(len(frame))
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nmse", [1e-12, 1e-16, 1e-30, 1e-80, 5e-324])
def test_errors_finer_than_float32_cost_no_more_than_without(nmse: float) -> None:
    arrays = {"w": of_rank(3)}
    codecs = [
        get_codec({"id": "lattice", "nmse": nmse, "compact": True, "rank": rank})
        for rank in (0, 16)
    ]
    sizes = [len(codec.encode(arrays)[0]) for codec in codecs]
    assert sizes[1] < 1.01 * sizes[0]


@pytest.mark.parametrize("nmse", [0.5, 0.3, 0.1])
def test_an_update_of_low_rank_takes_little_at_any_error(nmse: float) -> None:
    """Coarser steps are tried for products, and the one before may be the best."""
    arrays = {"w": of_rank(8, (5000, 200, 1), noise=1.0)}
    sizes = []
    for rank in (0, 16):
        config = {"id": "lattice", "nmse": nmse, "compact": True, "rank": rank}
        frame, told, _ = get_codec(config).encode_decoded(arrays)
        left = np.square(arrays["w"] - told["w"]).sum()
        assert left <= 1.05 * nmse * np.square(arrays["w"]).sum()
        sizes.append(len(frame))
    assert sizes[1] < 0.5 * sizes[0]


def test_noise_costs_no_more_than_without() -> None:
    rng = np.random.default_rng(3)
    arrays = {"w": rng.laplace(size=(128, 128)).astype(np.float32)}
    bare = {"id": "error_bounded", "rel": 0.01, "compact": True}
    frames = [
        get_codec({**bare, "rank": rank}).encode(arrays, None)[0] for rank in (0, 16)
    ]
    assert len(frames[1]) < 1.01 * len(frames[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e-15, 1e15, 1e25, 1e36])
@pytest.mark.parametrize("codec", ["lattice", "error_bounded"])
def test_values_of_any_scale_are_coded_in_silence(codec: str, scale: float) -> None:
    goal = {"nmse": 0.1} if codec == "lattice" else {"rel": 0.05}
    arrays = {"w": (np.float64(scale) * of_rank(3)).astype(np.float32)}
    sizes = []
    for rank in (0, 16):
        config = {"id": codec, "compact": True, "rank": rank, **goal}
        frame, told, _ = get_codec(config).encode_decoded(arrays)
        decoded, _ = get_codec(config).decode(frame)
        np.testing.assert_array_equal(decoded["w"], told["w"])
        sizes.append(len(frame))
    assert sizes[1] < 1.01 * sizes[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("codec", ["lattice", "error_bounded"])
def test_a_hostile_unit_is_refused_in_silence(codec: str) -> None:
    goal = {"nmse": 0.1} if codec == "lattice" else {"rel": 0.05}
    own = get_codec({"id": codec, "compact": True, "rank": 16, **goal})
    frame, _ = own.encode({"w": of_rank(3)})
    read = FrameReader(frame)
    sections = [
        Section(tag, bytes(read.section(tag, max_size=1 << 20)))
        for tag in read.info.sections
    ]
    hostile = [
        Section("OTAB", s.data[:1] + struct.pack("<f", 3e38) + s.data[5:])
        if s.tag == "OTAB"
        else s
        for s in sections
    ]
    digest = read.info.layout_digest
    for found in (sections, hostile):
        made = write_frame(config=own.config, layout_digest=digest, sections=found)
        if found is sections:
            own.decode(made)
        else:
            with pytest.raises(CodecError, match="NaN or infinity"):
                own.decode(made)


@pytest.mark.parametrize("rank", [-1, MAX_RANK + 1])
def test_a_senseless_rank_is_refused(rank: int) -> None:
    with pytest.raises(CodecError, match="rank must be 0 to 32"):
        get_codec({"id": "error_bounded", "rank": rank})


LOSSY = [TensorSpec("w", "float32", (24, 40, 3, 3)), TensorSpec("v", "float32", (99,))]


def reader(table: bytes, integers: bytes) -> FrameReader:
    """Return the reader of a frame with such sections."""
    sections = [Section("OTAB", table, itemsize=1), Section("OINT", integers)]
    frame = write_frame(config={"id": "x"}, layout_digest=bytes(16), sections=sections)
    return FrameReader(frame)


def told() -> tuple[bytes, bytes]:
    table, integers = pack_products([largest(), None])
    return bytes(table.data), bytes(integers.data)


def test_sections_are_read_as_they_were_written() -> None:
    found = read_products(reader(*told()), LOSSY, 4)
    assert found[1] is None
    assert found[0] is not None
    assert found[0].unit == largest().unit
    for name in ("doublings", "left", "right"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(largest(), name))
    assert pack_products([None, None]) == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda t: t[:-1], "wrong size"),
        (lambda t: t + b"\0", "wrong size"),
        (lambda t: b"\0\0", "wrong size"),
        (lambda t: b"", "wrong size"),
        (lambda t: b"\5" + t[1:] + b"\0", "cannot have"),
        (lambda t: b"\4\1" + t[2:6] + t[2:] + b"\0", "cannot have"),
        (lambda t: t[:2] + struct.pack("<f", 0.0) + t[6:], "malformed unit"),
        (lambda t: t[:2] + struct.pack("<f", -1.0) + t[6:], "malformed unit"),
        (lambda t: t[:2] + struct.pack("<f", float("nan")) + t[6:], "malformed unit"),
        (lambda t: t[:2] + struct.pack("<f", float("inf")) + t[6:], "malformed unit"),
        (lambda t: t[:-1] + b"\x10", "malformed doublings"),
        (lambda t: t[:-1] + b"\x0f", "too large"),
        (lambda t: b"\3" + t[1:-1], "block|run|part|symbol|state|lane|table"),
    ],
)
def test_malformed_tables_are_refused(changed, why: str) -> None:  # type: ignore[no-untyped-def]
    table, integers = told()
    with pytest.raises(CodecError, match=why):
        read_products(reader(changed(table), integers), LOSSY, 4)


def test_a_table_without_its_integers_is_refused() -> None:
    table, integers = told()
    with pytest.raises(CodecError):
        read_products(reader(table, b""), LOSSY, 4)
    with pytest.raises(CodecError):
        read_products(reader(table, integers[:-1]), LOSSY, 4)


def test_a_tensor_of_which_most_was_taken_out_keeps_the_common_step() -> None:
    """What is left of it is small, but was not when tensors were compared."""
    noise = np.random.default_rng(5).normal(0, 1, (96, 128)).astype(np.float32)
    shared = of_rank(2, (96, 128, 1), 0.1)[:, :, 0]
    bare = {"id": "lattice", "compact": True, "rank": 16}
    codec = get_codec({**bare, "nmse": 0.05})
    frame = codec.encode({"shared": shared, "noise": noise})[0]
    assert "OTAB" in inspect_frame(frame).sections
    whole = np.square(shared).sum() + np.square(noise).sum()
    error = 0.05 * float(whole / np.square(noise).sum())
    alone = get_codec({**bare, "nmse": error}).encode({"noise": noise})[0]
    assert len(frame) < len(alone) + 1000
