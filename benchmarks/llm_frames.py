"""Frames of language models: many small tensors, bfloat16, and few changed elements.

Three tables. The integers of LoRA adapters, in tensors of their own and as one tensor:
what the division costs. A model of 16-bit floats of which 2 % changed, as the exact
change of one that the receiver holds. Adapters in float32 and in bfloat16 under each
strategy: bytes both ways. Writes docs/benchmarks/llm-frames.md.

    python benchmarks/llm_frames.py
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from environment import describe
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy

from flwr_caesar import strategies as ours
from flwr_caesar.clients import compression_mod
from flwr_caesar.codec.published.lattice_model import (
    decode_model,
    encode_model,
    publish_model,
)
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.transport import arrays_to_record, record_to_arrays

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.codec.many_tensors import (
    Arrays,
    adapters,
    as_one,
    published_size,
    size,
    update,
)

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "llm-frames.md"
ROUNDS = 4
LATTICE = {"id": "lattice", "exact_below": 0, "fine_below": 1024}
CODECS = {
    "`lattice`, nmse 0.5": LATTICE | {"nmse": 0.5},
    "`lattice`, nmse 0.1": LATTICE | {"nmse": 0.1},
    "`topk`, density 0.1": {"id": "topk", "density": 0.1, "values": "float16"},
    "`error_bounded`, bound 3e-4": {"id": "error_bounded", "abs_bound": 3e-4},
    "`correlation`, density 0.05": {"id": "correlation", "density": 0.05},
}
STRATEGIES: dict[str, Callable[[Strategy], Strategy]] = {
    "Uncompressed": lambda inner: ours.Uncompressed(inner),
    "TopK": lambda inner: ours.TopK(inner),
    'TopK, downlink="lattice"': lambda inner: ours.TopK(inner, downlink="lattice"),
    "Caesar": lambda inner: ours.Caesar(inner),
    'Caesar, codec="paper"': lambda inner: ours.Caesar(inner, codec="paper"),
    "ErrorBounded": lambda inner: ours.ErrorBounded(inner),
    "CorrelationAware": lambda inner: ours.CorrelationAware(inner),
    "MagnitudePruning": lambda inner: ours.MagnitudePruning(inner),
}

PATCHES = """\
| type | tensors | each changed element is | raw bytes | whole frame | change \
| × less than raw | × less than whole |
| --- | --- | --- | --: | --: | --: | --: | --: |"""
TYPES = """\
| strategy | first download, float32 | bfloat16 | float16 \
| later downloads, float32 | bfloat16 | float16 \
| uploads, float32 | bfloat16 | float16 | all, of float32's: bfloat16 | float16 |
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |"""
DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16)


def divided() -> list[str]:
    """Return the rows of many tensors against one."""
    rows = []
    for rank, width in ((4, 256), (8, 768)):
        shapes = adapters(24, rank, width)
        many = update(shapes, np.random.default_rng(0))
        one = as_one(many, width)
        sizes = {name: (size(c, many), size(c, one)) for name, c in CODECS.items()}
        sizes["published change"] = published_size(many), published_size(one)
        for name, (a, b) in sizes.items():
            rows.append(
                f"| {len(many)} of {rank} × {width} | {name} | {a:,} | {b:,} "
                f"| {100 * (a / b - 1):+.1f} % |"
            )
            print(rows[-1], flush=True)
    return rows


def changed(old: Arrays, kind: str, rng: np.random.Generator) -> Arrays:
    """Return a model of which 2 % of the elements are others."""
    new = {}
    for name, array in old.items():
        words = array.copy().reshape(-1).view(np.int16)
        where = np.flatnonzero(rng.random(words.size) < 0.02)
        if kind == "other numbers":
            drawn = rng.normal(0, 0.02, where.size).astype(array.dtype)
            words[where] = drawn.view(np.int16)
        else:
            far = 1 if kind == "next number" else rng.geometric(0.5, where.size)
            words[where] += (rng.choice([-1, 1], where.size) * far).astype(np.int16)
        new[name] = words.view(array.dtype).reshape(array.shape)
    return new


def patched() -> list[str]:
    """Return the rows of models of which most elements did not change."""
    rows = []
    models = {
        "4 of 1,024 × 1,024": {str(i): (1024, 1024) for i in range(4)},
        "192 of 8 × 768": adapters(24, 8, 768),
    }
    for dtype in (ml_dtypes.bfloat16, np.float16):
        for what, shapes in models.items():
            for kind in ("next number", "a few numbers off", "other numbers"):
                rng = np.random.default_rng(0)
                old = {
                    name: rng.normal(0, 0.02, shape).astype(dtype)
                    for name, shape in shapes.items()
                }
                new = changed(old, kind, rng)
                before = publish_model(old, None, -8)
                after = publish_model(new, before, -8)
                frame, whole = encode_model(after, before), encode_model(after)
                found = decode_model(frame, before.arrays())
                if any(found[n].tobytes() != new[n].tobytes() for n in new):
                    raise SystemExit("the patch is not exact")
                nbytes = sum(array.nbytes for array in new.values())
                rows.append(
                    f"| {np.dtype(dtype).name} | {what} | {kind} | {nbytes:,} "
                    f"| {len(whole):,} | {len(frame):,} | {nbytes / len(frame):.0f} "
                    f"| {len(whole) / len(frame):.0f} |"
                )
                print(rows[-1], flush=True)
    return rows


def app() -> ClientApp:
    """Return devices that move each element towards their own target."""
    made = ClientApp(mods=[compression_mod])

    @made.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = record_to_arrays(msg.content["arrays"])
        rng = np.random.default_rng(context.node_id)
        trained = {}
        for name, array in arrays.items():
            target = rng.normal(0, 0.05, array.shape)
            moved = array + 0.05 * (target - array.astype(np.float64))
            trained[name] = moved.astype(array.dtype)
        content = {
            "arrays": arrays_to_record(trained),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=msg)

    return made


def traffic(name: str, dtype: Any) -> tuple[int, int, int]:
    """Return a device's first download, its later ones, and its uploads, in bytes."""
    random.seed(0)
    rng = np.random.default_rng(0)
    model = {
        name: (rng.uniform(-0.06, 0.06, shape) * ("lora_A" in name)).astype(dtype)
        for name, shape in adapters(6, 8, 256).items()
    }
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    strategy: Any = STRATEGIES[name](inner)
    strategy.start(InlineGrid(app(), 2), arrays_to_record(model), num_rounds=ROUNDS)
    rounds = strategy.history
    if any(record.dropped for record in rounds):
        raise SystemExit(f"{name}: {rounds[0].dropped}")
    down = [record.bytes_down // 2 for record in rounds]
    return down[0], sum(down[1:]), sum(record.bytes_up // 2 for record in rounds)


def in_each_type() -> list[str]:
    """Return the rows of float32 against the types of 16 bits."""
    rows = []
    for name in STRATEGIES:
        wide, *narrow = found = [traffic(name, dtype) for dtype in DTYPES]
        cells = [f"{nbytes:,}" for way in zip(*found, strict=True) for nbytes in way]
        cells += [f"{sum(own) / sum(wide):.3f}" for own in narrow]
        rows.append(f"| {name} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write the tables."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    many, few, both = (
        "\n".join(rows) for rows in (divided(), patched(), in_each_type())
    )
    TABLE.write_text(f"""# Frames of language models

## Many small tensors

LoRA adapters of 24 layers, four matrices each, and the same Gaussian numbers as one
tensor: bytes of a frame. All integers of a frame share their tables, and contexts go by
the scale of a row and a column, not by the tensor.

| tensors | codec | bytes | as one tensor | difference |
| --- | --- | --: | --: | --: |
{many}

`correlation` has a step, a mode and a number of kept elements for each tensor, and each
step follows the tensor's own largest element: so small tensors are sent more finely.

## Few changed elements

A model of 16-bit floats of which 2 % of the elements changed, as the exact change that
`lattice_model` sends to who holds the one before where such tensors are not on the
lattice (`LatticeRules(halves=False)`; histories of earlier releases have it so). The
change is by how many representable numbers an element moved; the positions are those of
the integers that are not 0, entropy-coded with them.

{PATCHES}
{few}

Elements that become any other number have some 10.6 bits of entropy each and positions
0.14 bits an element: 45 times is the most that any code reaches.

## float32, bfloat16 and float16

LoRA adapters of 6 layers, rank 8 and width 256 (98,304 elements), two devices and
{ROUNDS} rounds; bytes of a device.

{TYPES}
{both}

Uploads are of updates, which are float32 in all. A published model is on a lattice, in
16 bits on those of its points that the type holds; another download is exact.

{describe("python benchmarks/llm_frames.py", ("flwr", "numpy", "ml_dtypes"))}
""")


if __name__ == "__main__":
    main()
