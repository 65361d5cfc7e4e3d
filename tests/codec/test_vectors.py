"""Golden frames decode, for ever, to what was written beside them."""

from __future__ import annotations

import ast
import json
import re
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flwr_caesar.codec import (
    CodecState,
    Layout,
    StateMismatchError,
    get_codec,
    inspect_frame,
    list_codecs,
)
from flwr_caesar.codec.codecs.predicted import PredictedCodec
from flwr_caesar.codec.codecs.topk import TopKCodec
from flwr_caesar.codec.coding.positions import decode_positions, encode_positions
from flwr_caesar.codec.coding.small_block import decode_small_block, encode_small_block
from flwr_caesar.codec.contract.layout import TensorSpec, to_dtype
from flwr_caesar.codec.published.lattice_model import decode_model
from flwr_caesar.codec.published.lattice_point import decode_point
from tests.vectors.make import (
    BRIEF,
    CASES,
    COMPACT,
    FLAGS,
    HALVES,
    MODELS,
    POINT_LAYOUT,
    POINTS,
    PREDICTION,
    STEPS,
    describe,
)

from . import (
    plain_codecs,
    plain_compact,
    plain_correlation,
    plain_error_bounded,
    plain_lattice,
    plain_reader,
    plain_symbols,
)

VECTORS = Path(__file__).parents[1] / "vectors"
DOCUMENT = Path(__file__).parents[2] / "docs" / "wire-format.md"
POINT_SPECS = POINT_LAYOUT.tensors
FOLDERS = sorted(path.parent for path in VECTORS.glob("*/*/config.json"))


def rounds(folder: Path) -> list[tuple[bytes, list[dict[str, Any]]]]:
    """Return each round's frame and what it decodes to."""
    found = []
    for path in sorted(folder.glob("frame-*.bin")):
        expected = folder / path.name.replace("frame", "expected")
        text = expected.with_suffix(".json").read_text(encoding="utf-8")
        found.append((path.read_bytes(), json.loads(text)))
    return found


def case_id(folder: Path) -> str:
    return folder.relative_to(VECTORS).as_posix()


def assert_same(folder: Path, found: list[dict[str, Any]], expected: Any) -> None:
    """Compare tensors to the bit, or, where additions have no order, closely."""
    if folder.parent.name != "rotated":
        assert found == expected
        return
    for ours, theirs in zip(found, expected, strict=True):
        assert {**ours, "hex": ""} == {**theirs, "hex": ""}
        kind = to_dtype(ours["dtype"])
        a, b = (
            np.frombuffer(bytes.fromhex(tensor["hex"]), kind).astype(np.float64)
            for tensor in (ours, theirs)
        )
        rounding = {"float16": 2e-3, "bfloat16": 2e-2}.get(ours["dtype"], 1e-5)
        scale = np.abs(b).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding * scale)


@pytest.mark.parametrize("folder", FOLDERS, ids=case_id)
def test_golden_frames_decode(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    codec = get_codec(config)
    state: CodecState | None = None
    for frame, expected in rounds(folder):
        decoded, state = codec.decode(frame, state)
        assert_same(folder, describe(decoded), expected)


@pytest.mark.parametrize("folder", FOLDERS, ids=case_id)
def test_a_reader_made_from_the_document_agrees(folder: Path) -> None:
    state = None
    for frame, expected in rounds(folder):
        decoded, state = plain_codecs.decode(frame, state)
        assert_same(folder, describe_plain(decoded), expected)


def describe_plain(decoded: plain_reader.Decoded) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "hex": data.hex(),
        }
        for tensor, data in decoded
    ]


@pytest.mark.parametrize(
    ("folder", "count"),
    [(MODELS, 3), (STEPS, 4), (HALVES, 4), (COMPACT, 3), (BRIEF, 3)],
)
def test_golden_published_models_decode(folder: Path, count: int) -> None:
    model: dict[str, np.ndarray[Any, Any]] | None = None
    theirs: plain_reader.Decoded | None = None
    found = rounds(folder)
    assert len(found) == count
    for frame, expected in found:
        model = decode_model(frame, model)
        theirs = plain_lattice.lattice_model(frame, theirs)
        assert describe(model) == describe_plain(theirs) == expected


@pytest.mark.parametrize("name", ["as-they-are", "raised"])
def test_golden_frames_with_flags_decode(name: str) -> None:
    frame = (FLAGS / f"{name}.bin").read_bytes()
    expected, held = (
        json.loads((FLAGS / f"{case}.json").read_text(encoding="utf-8"))
        for case in (name, "base")
    )
    base = arrays_of(held)
    info = inspect_frame(frame)
    assert info.flags == {"as-they-are": 2, "raised": 4}[name]
    decoded, _ = get_codec(info.config).decode(frame, finite=False, base=base)
    assert describe(decoded) == expected
    numbers = {name: array.reshape(-1).tolist() for name, array in base.items()}
    theirs, _ = plain_codecs.decode(frame, base=numbers)
    assert describe_plain(theirs) == expected


@pytest.mark.parametrize("name", ["topk", "quantized"])
def test_golden_predicted_frames_decode(name: str) -> None:
    frame = (PREDICTION / f"{name}.bin").read_bytes()
    expected, held = (
        json.loads((PREDICTION / f"{case}.json").read_text(encoding="utf-8"))
        for case in (name, "last")
    )
    last = arrays_of(held)
    codec = get_codec(inspect_frame(frame).config)
    assert isinstance(codec, PredictedCodec)
    state = CodecState(Layout.of(last), 1, codec.prediction(last))
    decoded, after = codec.decode(frame, state)
    assert describe(decoded) == expected
    assert (after.version, after.arrays) == (0, {})
    table = [
        plain_reader.Tensor(t["name"], t["dtype"], tuple(t["shape"])) for t in held
    ]
    memory = {n: ("f", tuple(array.tolist())) for n, array in state.arrays.items()}
    theirs, later = plain_codecs.decode(frame, plain_codecs.State(table, 1, memory))
    assert describe_plain(theirs) == expected
    assert (later.version, later.arrays) == (0, {})
    with pytest.raises(StateMismatchError):
        codec.decode(frame, CodecState(Layout.of(last)))


def arrays_of(described: list[dict[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return what was described."""
    return {
        tensor["name"]: np.frombuffer(
            bytes.fromhex(tensor["hex"]), to_dtype(tensor["dtype"])
        ).reshape(tensor["shape"])
        for tensor in described
    }


def test_the_vectors_use_every_form_of_a_lattice() -> None:
    updates = [
        plain_reader.read_frame(frame).sections
        for folder in FOLDERS
        if folder.parent.name == "lattice"
        for frame, _ in rounds(folder)
    ]
    forms = {
        tuple(sorted(s.keys() & {"LATT", "LATS", "RICE", "CMPT", "STEP"}))
        for s in updates
    }
    alone = {("LATT",), ("RICE",), ("CMPT",)}
    stepped = {("LATS", "STEP"), ("RICE", "STEP"), ("CMPT", "STEP")}
    assert forms == alone | stepped
    models = [
        plain_reader.read_frame(frame).sections
        for folder in (MODELS, STEPS, HALVES, COMPACT, BRIEF)
        for frame, _ in rounds(folder)
    ]
    used = set().union(*models)
    assert used >= {"LATT", "RICE", "CMPT", "HALF", "ASIS"}
    units = [struct.unpack(f"<{len(s['UNIT']) // 2}h", s["UNIT"]) for s in models]
    assert any(-(1 << 15) in own for own in units)


def test_golden_lattice_points_decode() -> None:
    tensors = [plain_reader.Tensor(s.name, s.dtype, s.shape) for s in POINT_SPECS]
    point = theirs = None
    paths = sorted(POINTS.glob("point-*.bin"))
    assert len(paths) == 3
    for path in paths:
        data = path.read_bytes()
        name = path.stem.replace("point", "expected")
        expected = json.loads((POINTS / f"{name}.json").read_text())
        point = decode_point(data, point, POINT_SPECS)
        theirs = plain_lattice.lattice_point(data, tensors, theirs)
        for exponent, indices in ((point.exponent, point.indices.tolist()), theirs):
            assert {"exponent": exponent, "indices": indices} == expected


READER = (
    plain_reader,
    plain_symbols,
    plain_error_bounded,
    plain_compact,
    plain_correlation,
    plain_lattice,
    plain_codecs,
)


@pytest.mark.parametrize("module", READER, ids=lambda module: module.__name__)
def test_the_second_reader_is_independent(module: types.ModuleType) -> None:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            dots = "." * node.level
            imported.add(dots + node.module.partition(".")[0])
    siblings = {"." + module.__name__.rpartition(".")[2] for module in READER}
    assert imported <= sys.stdlib_module_names | {"zstandard"} | siblings


def test_there_are_vectors_for_every_codec_and_coding() -> None:
    assert {case_id(folder) for folder in FOLDERS} == CASES.keys()
    frames = {case_id(folder): rounds(folder) for folder in FOLDERS}
    for codec_id in list_codecs():
        tables = [
            "TABL" in inspect_frame(frame).sections
            for name, found in frames.items()
            if name.startswith(f"{codec_id}/")
            for frame, _ in found
        ]
        assert set(tables) == {True, False}, f"{codec_id}: with and without a table"
    modes = {
        _positions_mode(found[0][0]) & 0xC0
        for name, found in frames.items()
        if name.startswith("topk/")
    }
    assert modes == {0x00, 0x40, 0xC0}


def _positions_mode(frame: bytes) -> int:
    return plain_reader.read_frame(frame).sections["POS"][0]


def test_the_vectors_use_every_way_to_predict_and_to_code() -> None:
    bounded = [
        plain_reader.read_frame(frame).sections
        for name in ("rounds", "history")
        for frame, _ in rounds(VECTORS / "error_bounded" / name)
    ]
    modes = {mode for sections in bounded for mode in sections["TENS"][8::9]}
    assert modes == {0, 1, 2, 3, 4}
    published = [
        plain_reader.read_frame(frame).sections["TENS"]
        for frame, _ in rounds(VECTORS / "error_bounded" / "paper")
    ]
    flips = {
        (row[8], row[5] & 0x80)
        for table in published
        for row in (table[at : at + 9] for at in range(0, len(table), 9))
    }
    assert {(5, 0), (6, 0), (6, 0x80)} <= flips
    assert any("RPOS" in sections for sections in bounded)
    with_products = [
        plain_reader.read_frame(frame).sections["OTAB"]
        for frame, _ in rounds(VECTORS / "error_bounded" / "products")
    ]
    assert {bool(own) for table in with_products for own in table[:3]} == {True, False}
    assert any(table[3 + 4 * 2 :].strip(b"\0") for table in with_products)
    assert {sections["IDX"][3] for sections in bounded} == {0, 1}
    heads = {
        struct.unpack_from("<8xI", plain_reader.read_frame(frame).sections["SYM"])[0]
        > 0
        for name in ("symbols", "symbols-in-two-parts")
        for frame, _ in rounds(VECTORS / "qsgd" / name)
    }
    assert heads == {False, True}


def test_the_vectors_use_every_mode_and_form_of_the_correlation_codec() -> None:
    found = [
        plain_reader.read_frame(frame).sections
        for name in ("rounds", "without-memory", "many-levels")
        for frame, _ in rounds(VECTORS / "correlation" / name)
    ]
    rows = [
        row
        for sections in found
        for row in struct.iter_unpack("<eBB", sections["TENS"])
    ]
    assert {(rho != 0, rank > 0) for rho, _, rank in rows} == {
        (a, b) for a in (False, True) for b in (False, True)
    }
    assert {sections["VAL"][0] for sections in found} == {0, 1}


def test_the_frame_in_the_document_is_what_we_write() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").split("## 13.")[1]
    lines = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})  ", text, re.M)
    written = b""
    for offset, data in lines:
        assert int(offset, 16) == len(written)
        written += bytes.fromhex(data)
    w = np.array([[0.5, -2, 0.25], [0, 1.5, 0.125]], np.float32)
    codec = TopKCodec(density=0.3, values="float16", exact_below=4)
    frame, _ = codec.encode({"w": w, "n": np.array(7, np.int16)})
    assert written == frame


def test_the_positions_in_the_document_are_what_we_write() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").split("*Example.*")[1]
    block = re.search(r"```\n(.*?)\n```", text, re.S)
    assert block is not None
    data = bytes.fromhex(block[1])
    assert encode_positions(np.array([3, 4, 17, 30]), 40) == data
    assert decode_positions(data, 40).tolist() == [3, 4, 17, 30]
    assert plain_reader.read_positions(data, 40) == [3, 4, 17, 30]


def test_the_small_block_in_the_document_is_what_we_write() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(r"are `((?:[0-9a-f]{2} )+[0-9a-f]{2})`: `b = 3`", text)
    assert found is not None
    data = bytes.fromhex(found[1])
    specs = [TensorSpec("a", "float32", (3,)), TensorSpec("b", "float32", (2,))]
    tensors = [plain_reader.Tensor(s.name, s.dtype, s.shape) for s in specs]
    values = [1, -4, 12, 0, 0]
    assert encode_small_block(np.array(values, np.int32), specs) == data
    assert decode_small_block(data, specs).tolist() == values
    assert plain_lattice.read_small_block(data, tensors) == values
