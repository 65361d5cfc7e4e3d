"""The core reads products as the reference does, and writes none."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import CodecError, CodecState, Layout, get_codec, inspect_frame
from flwr_caesar.codec.conformance.mutate import Parts, seal
from flwr_caesar.codec.predictors.outer_products import Products
from flwr_caesar.codec.predictors.product_sections import pack_products
from tests.vectors.make import describe

from .jvm import Jvm, Reply
from .test_vectors import VECTORS, arrays_of, contents, dense, described, rounds

RANK = 4
CONFIG = {"id": "lattice", "step": 0.75, "exact_below": 8, "compact": True}
SHAPES = {"w": (24, 40, 3, 3), "v": (99,), "m": (64, 128), "zero": (96, 90)}
TYPES = {"w": "float32", "v": "float32", "m": "float64", "zero": "float32"}
GOLDEN = ["products", "memory-products"]


def largest(rows: int, columns: int, unit: float = 0.37) -> Products:
    """Return products whose sum just stays below 2^24."""
    rng = np.random.default_rng(rows)
    left = rng.integers(-390, 391, (RANK, rows), np.int32)
    right = rng.integers(-1000, 1001, (RANK, columns), np.int32)
    left[:, 0], right[:, 0] = 390, -1000
    doublings = np.array([0, 1, 3, 5], np.uint8)
    return Products(np.float32(unit), doublings, left, right)


def one(value: int, factor: int, doublings: int = 0, unit: float = 1.0) -> Products:
    """Return one product of equal integers, of the shape of `m`."""
    left = np.full((1, 64), value, np.int32)
    right = np.full((1, 128), factor, np.int32)
    return Products(np.float32(unit), np.array([doublings], np.uint8), left, right)


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    found = {n: rng.normal(0, 1, s).astype(TYPES[n]) for n, s in SHAPES.items()}
    found["zero"][:] = 0
    return found


LAYOUT = Layout.of(arrays())


def told(found: Sequence[Products | None]) -> tuple[bytes, bytes]:
    """Return the bytes of the sections of products, of the tensors in order."""
    table, integers = pack_products(found)
    return bytes(table.data), bytes(integers.data)


def frame_with(table: bytes, integers: bytes | None, **config: Any) -> bytes:
    """Return a frame of indices to which sections of products were added."""
    codec = get_codec({**CONFIG, "rank": RANK, **config})
    parts = Parts.of(codec.encode(arrays(), CodecState(LAYOUT))[0])
    for tag, data in ((b"OTAB", table), (b"OINT", integers)):
        if data is not None:
            parts.entries.append([tag, 0, len(data), len(data), data])
    return seal(parts.join())


def ask(jvm: Jvm, frame: bytes) -> Reply:
    config = dict(inspect_frame(frame).config)
    return jvm.ask("decode", [frame, b"", LAYOUT.to_bytes()], codec=config)


def reference(frame: bytes) -> dict[str, Any]:
    codec = get_codec(dict(inspect_frame(frame).config))
    return dict(codec.decode(frame, CodecState(LAYOUT))[0])


def in_order(**found: Products) -> list[Products | None]:
    return [found.get(spec.name) for spec in LAYOUT.tensors]


@pytest.mark.parametrize(
    "found",
    [
        in_order(w=largest(24, 360)),
        in_order(zero=largest(96, 90), w=largest(24, 360), m=largest(64, 128, 1e-41)),
        in_order(m=one(4095, 4096)),
        in_order(m=one((1 << 31) - 1, 0, 15)),
        in_order(m=one(-((1 << 24) - 1), 1, unit=3e-45)),
        in_order(m=one(1, -511, 15, unit=1e31)),
    ],
    ids=["one", "three", "largest", "times zero", "subnormal", "huge"],
)
def test_products_are_added_as_the_reference_adds_them(
    jvm: Jvm, found: list[Products | None]
) -> None:
    frame = frame_with(*told(found))
    decoded = reference(frame)
    assert described(ask(jvm, frame)) == describe(decoded)
    _, bare, _ = get_codec(CONFIG).encode_decoded(arrays(), None)
    for spec, own in zip(LAYOUT.tensors, found, strict=True):
        expected = bare[spec.name].astype(np.float32)
        if own is not None:
            left = own.left.astype(np.int64) << own.doublings[:, np.newaxis]
            sums = (left.T @ own.right.astype(np.int64)).astype(np.float32)
            expected = expected + (sums * own.unit).reshape(spec.shape)
        np.testing.assert_array_equal(decoded[spec.name], expected)


Change = Callable[[bytes], bytes]
TABLE, INTEGERS = told(in_order(w=largest(24, 360)))
UNIT = len(LAYOUT.tensors)


def rank_of(name: str, rank: int) -> Change:
    """Return what sets the number of a tensor's products in a table."""
    at = [spec.name for spec in LAYOUT.tensors].index(name)
    return lambda table: table[:at] + bytes([rank]) + table[at + 1 :]


def unit_of(unit: float) -> Change:
    return lambda table: table[:UNIT] + struct.pack("<f", unit) + table[UNIT + 4 :]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: b"", "wrong size"),
        (lambda t: t[:2], "wrong size"),
        (lambda t: t[:-1], "wrong size"),
        (lambda t: t + b"\0", "wrong size"),
        (lambda t: t + bytes(99), "expected at most"),
        (lambda t: bytes(UNIT), "wrong size"),
        (rank_of("w", 0), "wrong size"),
        (lambda t: rank_of("w", 5)(t) + b"\0", "cannot have"),
        (rank_of("w", 255), "wrong size"),
        (lambda t: rank_of("v", 1)(t) + bytes(5), "cannot have"),
        (unit_of(0.0), "malformed unit"),
        (unit_of(-0.0), "malformed unit"),
        (unit_of(-1.0), "malformed unit"),
        (unit_of(float("nan")), "malformed unit"),
        (unit_of(float("inf")), "malformed unit"),
        (lambda t: t[:-1] + b"\x10", "malformed doublings"),
        (lambda t: t[:-1] + b"\xff", "malformed doublings"),
        (lambda t: t[:-1] + b"\x0f", "too large"),
        (lambda t: rank_of("w", 3)(t[:-1]), ""),
    ],
)
def test_malformed_tables_are_refused(jvm: Jvm, change: Change, why: str) -> None:
    refused_by_both(jvm, frame_with(change(TABLE), INTEGERS), why)


def refused_by_both(jvm: Jvm, frame: bytes, why: str) -> None:
    with pytest.raises(CodecError):
        reference(frame)
    reply = ask(jvm, frame)
    assert any(word in reply.values["refused"] for word in why.split("|"))


@pytest.mark.parametrize(
    "integers",
    [None, b"", INTEGERS[:-1], INTEGERS + b"\0", bytes(len(INTEGERS)), bytes(1 << 21)],
    ids=["none", "empty", "short", "long", "zeros", "too many"],
)
def test_malformed_integers_are_refused(jvm: Jvm, integers: bytes | None) -> None:
    refused_by_both(jvm, frame_with(TABLE, integers), "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("found", "why"),
    [
        (one(4096, 4096), "too large"),
        (one(1 << 20, 1, 4), "too large"),
        (one((1 << 31) - 1, -(1 << 31) + 1, 15), "too large"),
        (one(1, -511, 15, unit=3e38), "NaN|infinit|finite"),
    ],
)
def test_sums_that_are_not_exact_or_not_finite_are_refused(
    jvm: Jvm, found: Products, why: str
) -> None:
    refused_by_both(jvm, frame_with(*told(in_order(m=found))), why)


@pytest.mark.parametrize("shape", [(8, 1023), (7, 2048), (2048, 7), (1 << 14,)])
def test_small_and_narrow_tensors_have_none(jvm: Jvm, shape: tuple[int, ...]) -> None:
    codec = get_codec({**CONFIG, "rank": 1})
    held = {"m": np.ones(shape, np.float32)}
    parts = Parts.of(codec.encode(held)[0])
    table = b"\1" + struct.pack("<f", 1) + b"\0"
    parts.entries.append([b"OTAB", 0, len(table), len(table), table])
    parts.entries.append([b"OINT", 0, 0, 0, b""])
    frame = seal(parts.join())
    with pytest.raises(CodecError, match="cannot have"):
        codec.decode(frame)
    reply = jvm.ask("decode", [frame, b"", b""], codec=codec.config)
    assert "cannot have" in reply.values["refused"]


def test_products_of_a_frame_without_rank_are_refused(jvm: Jvm) -> None:
    refused_by_both(jvm, frame_with(TABLE, INTEGERS, rank=0), "")


def test_integers_without_a_table_are_not_read(jvm: Jvm) -> None:
    parts = Parts.of(frame_with(TABLE, b""))
    parts.entries = [entry for entry in parts.entries if entry[0] != b"OTAB"]
    frame = seal(parts.join())
    assert described(ask(jvm, frame)) == describe(reference(frame))


@pytest.mark.parametrize("rank", [-1, 33, 1.5, "1", True, None, 1 << 40])
def test_a_senseless_rank_is_refused(jvm: Jvm, rank: object) -> None:
    config = {**CONFIG, "rank": rank}
    reply = jvm.ask("encode", [dense(arrays())], codec=config, known=True)
    assert "rank cannot be" in reply.values["refused"]


@pytest.mark.parametrize("name", GOLDEN)
def test_with_a_rank_a_phone_writes_what_it_writes_without(jvm: Jvm, name: str) -> None:
    config = json.loads((VECTORS / "lattice" / name / "config.json").read_text())
    codec = get_codec(config)
    for _, expected in rounds(VECTORS / "lattice" / name):
        given = arrays_of(expected)
        made, bare = (
            jvm.ask("encode", [dense(given)], codec=each, known=True)
            for each in (config, {**config, "rank": 0})
        )
        assert contents(made.blobs[0]) == contents(bare.blobs[0])
        assert described(made, 1) == described(bare, 1)
        assert inspect_frame(made.blobs[0]).config == codec.config
        assert "rank" not in inspect_frame(bare.blobs[0]).config
        read, _ = codec.decode(made.blobs[0], CodecState(Layout.of(given)))
        assert described(made, 1) == describe(read)
