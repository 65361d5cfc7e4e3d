"""The core reads and writes what the golden frames hold, to the bit."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from flwr_caesar.codec import CodecState, Layout, get_codec, inspect_frame
from flwr_caesar.codec.coding.lattice_block import decode_block, encode_block
from flwr_caesar.codec.coding.positions import encode_positions
from flwr_caesar.codec.contract.base import TABLE_TAG
from flwr_caesar.codec.contract.frame import FrameReader
from flwr_caesar.codec.contract.layout import TensorSpec, to_dtype
from tests.vectors.make import BRIEF, COMPACT, FLAGS, HALVES, MODELS, STEPS, describe

from .jvm import Jvm, Reply

VECTORS = Path(__file__).parents[1] / "vectors"
CODECS = ("dense", "lattice", "prune", "topk")
FOLDERS = [
    path.parent for codec in CODECS for path in VECTORS.glob(f"{codec}/*/config.json")
]
WITHOUT_MEMORY = [path for path in FOLDERS if not path.name.startswith("memory")]
"""A device keeps no memory of its uploads: it writes with one, and reads none."""
WITHOUT_PRODUCTS = [path for path in FOLDERS if not path.name.endswith("products")]
"""It reads products and writes none: `test_products` has what it writes."""
LATTICE_MODEL = {"id": "lattice_model"}
DENSE = get_codec("dense")
BLOCK_HEAD = 3
BLOCKS = {"CMPT", "RICE", "LATT", "LATS"}


def case_id(folder: Path) -> str:
    return folder.relative_to(VECTORS).as_posix()


def rounds(folder: Path) -> list[tuple[bytes, Any]]:
    found = []
    for path in sorted(folder.glob("frame-*.bin")):
        expected = folder / path.name.replace("frame", "expected")
        text = expected.with_suffix(".json").read_text(encoding="utf-8")
        found.append((path.read_bytes(), json.loads(text)))
    return found


def arrays_of(described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        tensor["name"]: np.frombuffer(
            bytes.fromhex(tensor["hex"]), to_dtype(tensor["dtype"])
        ).reshape(tensor["shape"])
        for tensor in described
    }


def described(reply: Reply, first: int = 0) -> list[dict[str, Any]]:
    """Return the tensors that a reply holds from a blob on."""
    assert "refused" not in reply.values, reply.values
    assert "lacks" not in reply.values, reply.values
    table, *data = reply.blobs[first:]
    specs = Layout.from_bytes(table).tensors
    return [
        {"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "hex": raw.hex()}
        for s, raw in zip(specs, data, strict=True)
    ]


def dense(arrays: Mapping[str, Any]) -> bytes:
    return DENSE.encode(arrays, finite=False)[0]


@pytest.mark.parametrize("folder", sorted(WITHOUT_MEMORY), ids=case_id)
def test_golden_frames_decode(jvm: Jvm, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    table = b""
    for frame, expected in rounds(folder):
        reply = jvm.ask("decode", [frame, b"", table], codec=config)
        assert described(reply) == expected
        table = reply.blobs[0]


@pytest.mark.parametrize(
    ("folder", "count"),
    [(MODELS, 3), (STEPS, 4), (HALVES, 4), (COMPACT, 3), (BRIEF, 3)],
)
def test_golden_published_models_decode(jvm: Jvm, folder: Path, count: int) -> None:
    base = b""
    found = rounds(folder)
    assert len(found) == count
    for frame, expected in found:
        reply = jvm.ask("decode", [frame, base, b""], codec=LATTICE_MODEL)
        assert described(reply) == expected
        base = dense(arrays_of(expected))


def test_a_published_change_needs_its_base(jvm: Jvm) -> None:
    change = rounds(MODELS)[1][0]
    reply = jvm.ask("decode", [change, b"", b""], codec=LATTICE_MODEL)
    assert "lacks" in reply.values


@pytest.mark.parametrize("name", ["as-they-are", "raised"])
def test_golden_frames_with_flags_decode(jvm: Jvm, name: str) -> None:
    frame = (FLAGS / f"{name}.bin").read_bytes()
    expected, held = (
        json.loads((FLAGS / f"{case}.json").read_text(encoding="utf-8"))
        for case in (name, "base")
    )
    config = dict(inspect_frame(frame).config)
    blobs = [frame, dense(arrays_of(held)), b""]
    reply = jvm.ask("decode", blobs, codec=config, finite=False)
    assert described(reply) == expected


def contents(frame: bytes) -> dict[str, bytes]:
    reader = FrameReader(frame)
    sizes = reader.info.sections
    return {tag: reader.section(tag, size=sizes[tag]) for tag in sizes}


@pytest.mark.parametrize("folder", sorted(WITHOUT_PRODUCTS), ids=case_id)
def test_updates_are_written_as_the_reference_writes_them(
    jvm: Jvm, folder: Path
) -> None:
    """All sections have the same content, though writers may choose.

    A phone has no zstd, by which the reference chooses between blocks, and writes the
    tables of a compact one as frequencies.
    """
    codec = get_codec(json.loads((folder / "config.json").read_text()))
    for golden, expected in rounds(folder):
        arrays = arrays_of(expected)
        known = TABLE_TAG not in inspect_frame(golden).sections
        state = CodecState(Layout.of(arrays)) if known else None
        frame, decoded, _ = codec.encode_decoded(arrays, state)
        made = jvm.ask("encode", [dense(arrays)], codec=codec.config, known=known)
        assert described(made, 1) == describe(decoded)
        theirs, ours = contents(made.blobs[0]), contents(frame)
        if theirs != ours and BLOCKS & theirs.keys():
            read, _ = codec.decode(made.blobs[0], CodecState(Layout.of(arrays)))
            assert describe(read) == describe(decoded)
            for tag in BLOCKS:
                theirs.pop(tag, None)
                ours.pop(tag, None)
        assert theirs == ours
        assert inspect_frame(made.blobs[0]).config == inspect_frame(frame).config


@pytest.mark.parametrize("dead_zone", [0.0, 0.5])
def test_of_equal_magnitudes_some_are_sent_as_the_reference_does(
    jvm: Jvm, dead_zone: float
) -> None:
    """The first step of Adam, beside a tensor of another scale and an exact one."""
    rng = np.random.default_rng(0)
    update = {
        "a": 1e-3 * rng.choice([-1.0, 1.0], (200, 300)),
        "b": 8e-3 * rng.choice([-1.0, 1.0], (300, 200)),
        "small": rng.normal(size=7),
    }
    update = {name: array.astype(np.float32) for name, array in update.items()}
    codec = get_codec({"id": "lattice", "rate": 0.3, "dead_zone": dead_zone})
    frame, decoded, _ = codec.encode_decoded(update, CodecState(Layout.of(update)))
    assert 0.1 < np.count_nonzero(decoded["a"]) / decoded["a"].size < 0.3
    made = jvm.ask("encode", [dense(update)], codec=codec.config, known=True)
    assert described(made, 1) == describe(decoded)
    assert contents(made.blobs[0]) == contents(frame)


def blocks() -> list[tuple[str, bool, list[list[int]], bytes]]:
    """Return the blocks of integers of all golden updates."""
    found = []
    for folder in sorted(FOLDERS):
        config = json.loads((folder / "config.json").read_text())
        for i, (frame, expected) in enumerate(rounds(folder)):
            specs = Layout.of(arrays_of(expected)).tensors
            parts = contents(frame)
            for tag in {"LATT", "LATS", "RICE", "BLK"} & parts.keys():
                codec = get_codec(config)
                _, lossy = codec._split(Layout(specs))  # type: ignore[attr-defined]
                steps = np.frombuffer(parts.get("STEP", bytes(len(lossy))), np.int8)
                kept = [
                    list(spec.shape)
                    for spec, step in zip(lossy, steps, strict=True)
                    if step != -128
                ]
                start = 0 if tag == "BLK" else BLOCK_HEAD
                name = f"{case_id(folder)} {i} {tag}"
                found.append((name, tag == "RICE", kept, parts[tag][start:]))
    return found


def test_blocks_are_written_again_as_the_reference_writes_them(jvm: Jvm) -> None:
    found = blocks()
    assert len(found) >= 20
    assert any(is_small for _, is_small, _, _ in found)
    for name, is_small, shapes, data in found:
        reply = jvm.ask("block", [data], small=is_small, shapes=shapes)
        specs = [TensorSpec("", "float32", tuple(shape)) for shape in shapes]
        again = data if is_small else encode_block(decode_block(data, specs), specs)
        assert reply.blobs == [again], name


@pytest.mark.parametrize("level", [-5, 1, 3, 9, 19])
def test_zstd_frames_of_every_kind_decompress(jvm: Jvm, level: int) -> None:
    rng = np.random.default_rng(3)
    text = Path(__file__).read_bytes() * 3
    walk = np.cumsum(rng.integers(-2, 3, 50_000)).astype("<i4").tobytes()
    floats = rng.normal(0, 0.05, 40_000).astype("<f4")
    samples = [
        b"",
        b"a",
        b"abc" * 5000,
        bytes(300_000),
        rng.bytes(200_000),
        text,
        walk,
        floats.view(np.uint8).reshape(-1, 4).T.tobytes(),
        rng.choice([0, 0, 0, 1, 7, 255], 300_000).astype(np.uint8).tobytes(),
    ]
    for data in samples:
        for checksum in (False, True):
            writer = zstandard.ZstdCompressor(level=level, write_checksum=checksum)
            packed = writer.compress(data)
            reply = jvm.ask("zstd", [packed], size=len(data))
            assert reply.values == {"crc": zlib.crc32(data)}
            if checksum:
                wrong = packed[:-1] + bytes([packed[-1] ^ 1])
                assert "refused" in jvm.ask("zstd", [wrong], size=len(data)).values


@pytest.mark.parametrize("n", [0, 1, 40, 70_000])
def test_positions_are_those_of_the_reference(jvm: Jvm, n: int) -> None:
    rng = np.random.default_rng(n)
    for density in (0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 1.0):
        positions = np.flatnonzero(rng.random(n) < density)
        data = encode_positions(positions, n)
        reply = jvm.ask("positions", [data], n=n)
        assert reply.values == {"positions": positions.tolist()}
        assert reply.blobs == [data]


def test_the_frame_of_the_document_is_written_again(jvm: Jvm) -> None:
    """The one of docs/wire-format.md, section 13, to the last byte."""
    config = {"id": "topk", "density": 0.3, "values": "float16", "exact_below": 4}
    arrays = {
        "w": np.array([[0.5, -2, 0.25], [0, 1.5, 0.125]], np.float32),
        "n": np.array(7, np.int16),
    }
    made = jvm.ask("encode", [dense(arrays)], codec=config, known=False)
    frame = get_codec(config).encode(arrays)[0]
    assert len(frame) == 250
    assert made.blobs[0] == frame
    state = CodecState(Layout.of(arrays))
    assert describe(get_codec(config).decode(frame, state)[0]) == described(made, 1)
    assert struct.unpack_from("<H", frame, 6) == (4,)
