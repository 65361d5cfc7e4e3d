"""What `fuzz_kernel.py` gives to the kernel and to the decoders that call it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flwr_caesar.codec import CodecState, get_codec
from flwr_caesar.codec.coding.compact_block import (
    decode_compact_block,
    encode_compact_block,
)
from flwr_caesar.codec.coding.integers import decode_integers, encode_integers
from flwr_caesar.codec.coding.lattice_block import decode_block, encode_block
from flwr_caesar.codec.coding.rans import decode_symbols, encode_symbols
from flwr_caesar.codec.coding.small_block import decode_groups, encode_groups
from flwr_caesar.codec.conformance.mutate import mutate
from flwr_caesar.codec.contract.layout import Layout

EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
KINDS = ("u1", "u2", "u4", "i2", "i4", "i8", "f4", "f8")
MOST = 400

Array = np.ndarray[Any, Any]
Generator = np.random.Generator


@dataclass(frozen=True)
class Target:
    """A decoder and good encodings.

    Parameters
    ----------
    decode : callable
        Takes bytes and the number of the encoding that they were made of.
    good : list of bytes
        The encodings.
    mutate : callable
        Makes a hostile one of a good one.
    """

    decode: Callable[[bytes, int], object]
    good: list[bytes]
    mutate: Callable[[bytes, Generator], bytes]


def spoil(data: bytes, rng: Generator) -> bytes:
    """Change, cut or lengthen the bytes; in half of the cases only change the last."""
    bad = bytearray(data)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(len(bad) // 3, len(bad)))] ^= int(rng.integers(256))
        return bytes(bad)
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(6))
        at = int(rng.integers(min(len(bad), 64) if rng.random() < 0.5 else len(bad)))
        if kind == 0:
            bad[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            bad[at : at + 2] = struct.pack("<H", int(rng.choice(EDGES)) & 0xFFFF)
        elif kind == 2:
            bad[at : at + 4] = struct.pack("<I", int(rng.choice(EDGES)))
        elif kind == 3:
            bad = bad[: at + 1]
        elif kind == 4:
            bad += rng.bytes(int(rng.integers(1, 40)))
        else:
            stop = at + int(rng.integers(1, 200))
            bad[at:stop] = rng.bytes(len(bad[at:stop]))
    return bytes(bad)


def symbols_target() -> Target:
    """One lane and a few, two parts, many contexts, and symbols of two bytes."""
    rng = np.random.default_rng(0)
    cases, good = [], []
    sizes = (60, 1, 0.6), (900, 5, 3.0), (3000, 256, 2.0), (700, 2, 400.0)
    for n, contexts, scale in (*sizes, (20_000, 7, 20.0)):
        at = rng.integers(0, contexts, n).astype(np.uint8)
        symbols = np.minimum(rng.exponential(scale, n), 511).astype(np.uint16)
        cases.append((at, contexts))
        good.append(encode_symbols(symbols, at, contexts))

    def decode(data: bytes, number: int) -> object:
        return decode_symbols(data, *cases[number])

    return Target(decode, good, spoil)


def integers_target() -> Target:
    """Integers near 0, and of up to 31 bits."""
    rng = np.random.default_rng(1)
    cases, good = [], []
    for n, bits in (200, 4), (300, 12), (150, 31):
        at = rng.integers(0, 3, n).astype(np.uint8)
        values = np.rint(rng.laplace(size=n) * 2.0 ** rng.integers(0, bits - 1, n))
        cases.append(at)
        good.append(encode_integers(values.astype(np.int32), at, 3))

    def decode(data: bytes, number: int) -> object:
        return decode_integers(data, cases[number], 3)

    return Target(decode, good, spoil)


def arrays(rng: Generator, rows: int = 6) -> dict[str, Array]:
    """Return some elements in tensors of one to four axes."""
    shapes = {"a": (rows, 5, 3, 3), "b": (9, 5 * rows), "c": (64,), "d": (3,)}
    scales = {name: rng.lognormal(0, 1.5, shape[0]) for name, shape in shapes.items()}
    return {
        name: (rng.laplace(0, 0.05, shape).T * scales[name]).T.astype(np.float32)
        for name, shape in shapes.items()
    }


def block_target() -> Target:
    """Blocks of several tensors."""
    rng = np.random.default_rng(2)
    specs = Layout.of(arrays(rng)).tensors
    n = sum(spec.size for spec in specs)
    good = [
        encode_block(np.rint(rng.laplace(size=n) * scale).astype(np.int32), specs)
        for scale in (0.5, 4.0, 2000.0)
    ]
    return Target(lambda data, _: decode_block(data, specs), good, spoil)


def compact_target() -> Target:
    """Compact blocks: tables, parameters, scales in groups and in a run, raw bits."""
    rng = np.random.default_rng(3)
    specs = Layout.of(arrays(rng, 40)).tensors
    n = sum(spec.size for spec in specs)
    good = [
        encode_compact_block(np.rint(values * scale).astype(np.int32), specs)[0]
        for scale in (0.3, 4.0, 2000.0)
        for values in (rng.laplace(size=n), np.abs(rng.laplace(size=n)))
    ]
    return Target(lambda data, _: decode_compact_block(data, specs)[0], good, spoil)


def groups_target() -> Target:
    """Integers near 0 and of all 32 bits, in groups of which one may be of zeros."""
    rng = np.random.default_rng(4)
    cases, good = [], []
    for bits in 2, 7, 32:
        sizes = rng.integers(0, 60, 4).tolist()
        most = 1 << (bits - 1)
        groups = [rng.integers(-most, most, size) for size in sizes]
        groups[1] *= 0
        cases.append(sizes)
        good.append(encode_groups([group.astype(np.int32) for group in groups]))

    def decode(data: bytes, number: int) -> object:
        values, end = decode_groups(data, 0, cases[number])
        return np.append(values, end)

    return Target(decode, good, spoil)


def frame_target(config: dict[str, Any], rows: int = 6) -> Target:
    """Frames of a codec, continuing from a state if it has one."""
    codec = get_codec(config)
    layout = Layout.of(arrays(np.random.default_rng(0), rows))
    held: list[CodecState | None] = [None]
    sender: CodecState | None = None
    good = []
    for i in range(2):
        frame, sender = codec.encode(arrays(np.random.default_rng(i), rows), sender)
        held.append(codec.decode(frame, held[-1])[1])
        good.append(frame)

    def decode(data: bytes, number: int) -> object:
        return codec.decode(data, held[number], max_bytes=layout.nbytes)[0]

    return Target(decode, good, lambda frame, rng: mutate(frame, rng)[1])


def make_targets() -> dict[str, Target]:
    """Return all targets by name."""
    return {
        "symbols": symbols_target(),
        "integers": integers_target(),
        "block": block_target(),
        "compact block": compact_target(),
        "groups": groups_target(),
        "frame of lattice": frame_target({"id": "lattice", "rate": 2.0}, 60),
        "frame of error_bounded": frame_target(
            {"id": "error_bounded", "exact_below": 4}
        ),
    }


def random_argument(rng: Generator) -> object:
    """Return an array of any kind, small numbers mostly, or a number."""
    if rng.random() < 0.15:
        return int(rng.choice((-1, 0, 1, 2, 4, 9, 512, 2**31, 2**62)))
    kind = np.dtype(str(rng.choice(KINDS)))
    n = int(rng.choice((0, 1, 2, 4, 9, 28, 29, 256, 512, MOST)))
    if kind.kind == "f" or rng.random() < 0.3:
        return np.frombuffer(rng.bytes(n * kind.itemsize), kind).copy()
    return rng.integers(0, int(rng.choice((2, 5, 100))), n).astype(kind)


def fitting_arguments(name: str, rng: Generator) -> list[object]:
    """Return arguments of the right kinds and lengths, with any contents."""
    n = int(rng.integers(1, MOST))
    top = int(rng.choice((2, 40, 300, 65_536)))

    def some(kind: str, count: int, most: int = top) -> Array:
        info = np.iinfo(kind)
        return rng.integers(0, min(most, int(info.max) + 1), count).astype(kind)

    lanes = some("u4", int(rng.integers(1, 20)), 2**32)
    counts = rng.multinomial(1 << 14, rng.dirichlet(np.ones(6)), 3).astype(np.uint16)
    table = (counts[:, :1].astype(np.uint32) << 16).repeat(512, axis=1)
    starts = np.sort(rng.integers(0, 60, 29)).astype(np.int64)
    wide, mantissa = some("i4", n, 2**31), int(rng.choice((2, 4)))
    o, i, k = (int(v) for v in rng.integers(1, 12, 3))
    floats = np.frombuffer(rng.bytes(4 * n), np.float32).copy()
    tensor = np.frombuffer(rng.bytes(4 * o * i * k), np.float32).copy()
    scales = [some("i2", int(rng.choice((0, m))), 300) for m in (o, i, k)]
    found: dict[str, list[object]] = {
        "push": [lanes, some("u2", n), some("u1", n, 4), table, some("u2", n + 1)],
        "pull": [lanes, some("u2", n), some("u2", n), some("u1", n, 4), counts, 6, 1],
        "symbols": [wide, some("u2", n), mantissa],
        "octaves": [some("u2", n), np.zeros(28, np.int64), mantissa],
        "raw_bits": [wide, some("u2", n, 130), starts, some("u1", 60), mantissa],
        "near": [some("u2", n, 130), np.zeros(28, np.int64), wide, mantissa],
        "far": [some("u2", n, 130), starts, some("u1", 60), wide, mantissa],
        "count": [some("u2", n), some("u1", n, 4), np.zeros(120, np.int64), 40],
        "mark": [some("u1", n), np.zeros(256, np.uint8)],
        "sums": [tensor, np.zeros(o), np.zeros(i), np.zeros(k)],
        "energy": [floats],
        "classes": [
            int(rng.integers(-300, 300)),
            *scales,
            *(o, i, k, np.empty(o * i * k, np.uint8)),
        ],
        "merge": [
            some("u1", n),
            *(int(v) for v in (rng.integers(8), rng.integers(40), rng.integers(256))),
            some("u1", n),
        ],
        "sample": [
            *(floats, some("i2", n, 96), int(rng.integers(-400, 400))),
            *(float(rng.choice((1e-30, 0.5))), 0.4, some("u2", n), some("u1", n)),
        ],
        "lost": [floats, float(rng.choice((0.0, 1e-30, 0.5, -1.0))), 0.4],
        "quantise": [floats, float(rng.choice((0.0, 1e-30, 0.5, -1.0))), 0.4, wide],
        "values": [wide, 0.5, 5.0],
        **block_arguments(rng),
    }
    return found[name]


def block_arguments(rng: Generator) -> dict[str, list[object]]:
    """Return fitting arguments of what goes through groups, or a block of tensors."""
    shapes = rng.integers(0, 9, (int(rng.integers(1, 5)), 3))
    axes = rng.integers(0, 8, len(shapes))
    rows = np.column_stack([shapes, axes]).astype(np.int64)
    scaled = (axes[:, None] >> np.arange(3)) & 1
    num_scales = len(rows) + int((scaled * shapes).sum())
    sizes = shapes.prod(axis=1)
    n, most = int(sizes.sum()), 1 << int(rng.choice((1, 4, 31)))
    modes = rng.integers(0, 3, len(rows)).astype(np.uint8)
    signed = [
        0 if mode == 0 else own[mode - 1]
        for mode, own in zip(modes, shapes, strict=True)
    ]
    values = rng.integers(-most, most, n).astype(np.int32)
    room = np.empty(len(rows) + (34 * n + 7) // 8 + 2, np.uint8)
    data = rng.integers(0, 256, len(rows) + n, np.uint8)
    data[: len(rows)] = rng.choice((0, 1, 4, 31, 32, 255), len(rows))
    scales = rng.integers(-300, 300, num_scales).astype(np.int16)
    signs = np.empty(int(shapes[:, :2].sum()), np.int64)
    active = np.empty(len(rows), np.int64)
    context = [int(rng.integers(8)), int(rng.integers(40)), int(rng.integers(40, 256))]
    return {
        "write_groups": [values, sizes, room],
        "read_groups": [data, 0, sizes, np.empty(n, np.int32)],
        "block_sums": [values, rows, np.empty(num_scales), signs, active],
        "block_flip": [values, rows, modes, np.ones(sum(signed), np.uint8)],
        "block_contexts": [scales, rows, *context, np.empty(n, np.uint8)],
    }


def call_directly(native: Any, rng: Generator) -> str:
    """Call a function of the kernel with what nobody has checked."""
    names = [n for n in dir(native) if n[0] != "_" and callable(getattr(native, n))]
    name = str(rng.choice(names))
    arguments = fitting_arguments(name, rng)
    for _ in range(int(rng.integers(0, 3))):
        place = int(rng.integers(len(arguments)))
        arguments[place] = random_argument(rng)
    try:
        getattr(native, name)(*arguments)
    except (ValueError, TypeError, BufferError, OverflowError) as err:
        return type(err).__name__
    return "returned"
