"""What uploads take where both sides know something of them from before.

Trains the tasks of ``flwr-caesar run`` with Caesar in one process and codes each
upload's integers again, by each past that device and server could both know. The page
is written to docs/benchmarks/upload-contexts.md.

    python benchmarks/upload_contexts.py
    python benchmarks/upload_contexts.py --only "MNIST, 5 of 50"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe

from flwr_caesar.clients import handling
from flwr_caesar.codec import Layout, difference, update_layout
from flwr_caesar.codec.codecs.lattice import LatticeCodec
from flwr_caesar.codec.coding.compact_block import in_steps
from flwr_caesar.codec.coding.contexts import (
    Scales,
    SliceSums,
    as_channels,
    count_scales,
    scale_classes,
)
from flwr_caesar.codec.coding.counts import entropy_bits
from flwr_caesar.codec.coding.integers import Integers
from flwr_caesar.codec.coding.past import Past
from flwr_caesar.codec.coding.signs import SignSums
from flwr_caesar.codec.contract.frame import FrameReader, write_frame
from flwr_caesar.codec.contract.layout import Array, Arrays, TensorSpec
from flwr_caesar.codec.contract.vector import Vector, slices
from flwr_caesar.codec.predictors.narrowed import narrow, widen
from flwr_caesar.codec.quantisers.lattice_sections import (
    pack_quantised,
    unpack_quantised,
)
from flwr_caesar.codec.quantisers.lattice_steps import Quantised
from flwr_caesar.runner import config, inline

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "upload-contexts.md"
PUBLISHED, SCALED, ROUND = "published", "scaled", "round"
BEST, OWN = "best", "own"
WHOLE = slice(None), slice(None), slice(None)
LIMITS = 0.25, 0.7, 1.5, 3.0
TASKS = {
    "MNIST, 6 of 6": (
        "experiment=caesar_mnist5k rounds=12 federation.num_supernodes=6 "
        "federation.fraction_train=1.0"
    ),
    "MNIST, half of 20": "experiment=mnist5k federation=inline rounds=12",
    "MNIST, 5 of 50": "experiment=caesar_mnist5k rounds=60",
    "activity, 5 of 10": "experiment=caesar_activity rounds=40",
    "Python manual, 4 of 40": "experiment=caesar_pydoc rounds=30",
    "Python manual, 8 of 8": (
        "experiment=caesar_pydoc rounds=8 federation.num_supernodes=8 "
        "federation.fraction_train=1.0"
    ),
    "Shakespeare, 10 of 100": "experiment=caesar_shakespeare rounds=12",
    "ResNet-18, 4 of 8": (
        "experiment=caesar_resnet rounds=3 federation.num_supernodes=8 "
        "federation.fraction_train=0.5 data.test_size=100"
    ),
}
COLUMNS = (
    "task, devices in a round",
    "parameters",
    "uploads",
    "mean kB",
    "versions missed",
    "published",
    "scaled",
    "round",
    "published at best",
    "own",
    "own or nothing",
    "any",
)
HEAD = """# Contexts of uploads

`lattice` can code the integers of an update in contexts of what both sides know from
before, and their signs as whether they are those of it. Each upload of `Caesar` was
coded again by

- **published**: the change of the model that the device has just decoded, which the
  server can make again: no state on the device. **Scaled**: times one number for each
  tensor, so that its mean magnitude is the update's;
- **round**: the same of the last round alone, whatever the device had missed;
- **own**: the device's last update, as `upload_memory` does.

Percent of all bytes of the uploads' frames over those that are coded by nothing. Where
there is no past yet, nothing is used. The last two columns are of the shortest frame of
each upload. **At best** estimates what a coder could gain: the conditional entropy of
magnitudes,
by scale and by the published change's magnitude over what its channels tell of it, in
five classes, and of signs, by channel and by the change's sign and class, with half a
byte for each count; over that without the change.

"""
VERDICT = """
What the change of the published model tells of a device's own update is mostly told by
the scales and signs of channels already. There is more only for models of text. No
upload is coded by it.
"""


class Uploads:
    """Codes each upload of a run anew, by each past."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._change: Arrays | None = None
        self._missed = 0
        self._models: list[tuple[bytes, Arrays]] = []
        self._own: dict[bytes, tuple[list[Any], list[Scales]]] = {}
        self._receive, self._commit = handling.receive, handling.commit_update

    def __enter__(self) -> Uploads:
        handling.receive, handling.commit_update = self.receive, self.commit
        return self

    def __exit__(self, *_: object) -> None:
        handling.receive, handling.commit_update = self._receive, self._commit

    def receive(self, state: Any, header: Any, frame: Any, **kwargs: Any) -> Any:
        """Note what the model changed by that a device receives."""
        before = dict(state.model) if state is not None and state.model else None
        missed = header.target[0] - state.version if before else 0
        received = self._receive(state, header, frame, **kwargs)
        self._change, self._missed = None, missed
        if received.model is None:
            return received
        model = {name: np.array(array) for name, array in received.model.items()}
        if not self._models or self._models[-1][0] != header.target[1]:
            self._models = [*self._models[-1:], (header.target[1], model)]
        if before is not None and missed:
            self._change = difference(model, before)
        return received

    def commit(
        self, state: Any, header: Any, update: Arrays, *, codec: Any, **kwargs: Any
    ) -> Any:
        """Code an upload anew."""
        committed = self._commit(state, header, update, codec=codec, **kwargs)
        layout = update_layout(Layout.of(state.model))
        _, lossy = codec._split(layout)
        reader = FrameReader(committed.frame)
        found, _ = unpack_quantised(reader, lossy, compact=codec.compact)
        steps = _steps(codec, found, lossy)
        indices = found.indices.copy()
        means = [
            float(np.abs(indices[part]).mean()) if part.stop > part.start else 0.0
            for part in slices(lossy)
        ]
        pasts: dict[str, Past] = {}
        if self._change is not None:
            pasts[PUBLISHED] = _past(self._change, lossy, steps)
            pasts[SCALED] = _past(self._change, lossy, steps, means)
            if len(self._models) > 1:
                last = difference(self._models[1][1], self._models[0][1])
                pasts[ROUND] = _past(last, lossy, steps, means)
        if state.token in self._own:
            words, scales = self._own[state.token]
            pasts[OWN] = Past(lambda i: in_steps(widen(words[i]), steps[i]), scales)
        alone, scales = _nbytes(found, lossy, None)
        whole = len(committed.frame)
        row = {"": whole, "elements": layout.num_params, "missed": self._missed}
        if PUBLISHED in pasts:
            row[BEST] = whole + _at_best(indices, lossy, pasts[PUBLISHED])
        for name, past in pasts.items():
            row[name] = whole + _nbytes(found, lossy, past)[0] - alone
        self.rows.append(row)
        values = [
            narrow(indices[part].astype(np.float32) * step)
            for part, step in zip(slices(lossy), steps, strict=True)
        ]
        self._own[state.token] = values, scales
        return committed


def _steps(
    codec: LatticeCodec, found: Quantised, lossy: list[TensorSpec]
) -> list[np.float32]:
    return [
        np.ldexp(
            np.float32(found.step.multiple), codec._exponent(found.step, offset, spec)
        )
        for spec, offset in zip(lossy, found.offsets, strict=True)
    ]


def _past(
    arrays: Arrays,
    lossy: list[TensorSpec],
    steps: list[np.float32],
    means: list[float] | None = None,
) -> Past:
    """Return arrays as a past, of the mean magnitudes that are given."""
    none = [np.zeros(count_scales(as_channels(s.shape)), np.int16) for s in lossy]

    def previous(i: int) -> Vector:
        own = np.array(arrays[lossy[i].name], np.float32).reshape(-1)
        own = in_steps(own, steps[i])
        mean = float(np.abs(own).mean()) if own.size else 0.0
        if means is None or not mean or not means[i]:
            return own
        return own * np.float32(means[i] / mean)

    return Past(previous, none)


def _nbytes(
    found: Quantised, lossy: list[TensorSpec], past: Past | None
) -> tuple[int, list[Scales]]:
    """Return the bytes of a frame of compact blocks, and the scales in it."""
    sections, scales = pack_quantised(found, lossy, past, compact=True)
    frame = write_frame(
        config={"id": "lattice"}, layout_digest=bytes(16), sections=sections
    )
    return len(frame), scales


def _at_best(indices: Integers, lossy: list[TensorSpec], past: Past) -> float:
    """Return by how many bytes entropies differ with a past and without."""
    found: list[tuple[Array, ...]] = []
    for i, (spec, part) in enumerate(zip(lossy, slices(lossy), strict=True)):
        shape = as_channels(spec.shape)
        own = indices[part].reshape(shape)
        before = np.sign(past.previous(i)).astype(np.int32).reshape(shape)
        sums, signs = SliceSums(shape), SignSums(shape)
        sums.add(WHOLE, own.astype(np.float32))
        signs.add(WHOLE, own)
        classes = scale_classes(sums.coarse_scales(signs.active)[0], shape)
        channels = signs.best(with_history=False)
        size = np.abs(past.previous(i)).astype(np.float64).reshape(shape)
        expected = size.mean((1, 2), keepdims=True) * size.mean((0, 2), keepdims=True)
        seen = sum(size * size.mean() > limit * expected for limit in LIMITS)
        flipped = channels.flip(own, WHOLE, None), channels.flip(before, WHOLE, None)
        columns = np.abs(own), classes >> 2, seen, *flipped, np.full(shape, i)
        found.append(tuple(column.reshape(-1) for column in columns))
    size, scale, seen, sign, before, tensor = map(
        np.concatenate, zip(*found, strict=True)
    )
    bits = _bits(size, scale * 8 + seen) - _bits(size, scale)
    at = np.flatnonzero(sign)
    told = (tensor[at] * 8 + seen[at]) * 3 + np.sign(before[at]) + 1
    bits += min(_bits(sign[at] > 0, told) - _bits(sign[at] > 0, tensor[at]), 0)
    return min(bits, 0.0) / 8


def _bits(symbols: Array, contexts: Array) -> float:
    """Return the conditional entropy of symbols, and half a byte for each count."""
    symbols = np.minimum(symbols, 40).astype(np.int64)
    counts = np.bincount(contexts.astype(np.int64) * 41 + symbols)
    counts = np.pad(counts, (0, -len(counts) % 41)).reshape(-1, 41)
    return entropy_bits(counts) + 4 * int(np.count_nonzero(counts))


def line(name: str, rows: list[Mapping[str, float]]) -> str:
    """Return a task's line of the table."""
    alone = sum(row[""] for row in rows)

    def percent(*pasts: str, best: bool = False) -> str:
        total = 0.0
        for row in rows:
            known = [row[past] for past in pasts if past in row]
            total += min([row[""], *known]) if best or not known else known[0]
        return f"{100 * (total / alone - 1):+.2f} %".replace("-0.00", "+0.00")

    cells = [
        name,
        f"{rows[0]['elements']:,.0f}",
        str(len(rows)),
        f"{alone / len(rows) / 1000:.1f}",
        f"{sum(row['missed'] for row in rows) / len(rows):.1f}",
        *(percent(past) for past in (PUBLISHED, SCALED, ROUND, BEST, OWN)),
        percent(OWN, best=True),
        percent(PUBLISHED, SCALED, ROUND, OWN, best=True),
    ]
    return f"| {' | '.join(cells)} |"


def measure(overrides: str) -> list[dict[str, float]]:
    """Train a task, and return what each upload takes by each past."""
    spec = config.compose([*overrides.split(), "strategy=caesar"])
    with tempfile.TemporaryDirectory() as folder, Uploads() as uploads:
        file = Path(folder) / "spec.json"
        file.write_text(json.dumps(spec), encoding="utf-8")
        inline.main([str(file), folder])
    return uploads.rows


def _alone(name: str) -> str:
    """Return a task's line, made in a process of its own."""
    command = [sys.executable, __file__, "--only", name]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return next(each for each in told.stdout.splitlines() if each.startswith("| "))


def main() -> None:
    """Measure all tasks, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=TASKS, help="print the line of one task")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only:
        os.nice(10)
        print(line(args.only, measure(TASKS[args.only])))
        return
    lines = [_alone(name) for name in TASKS]
    told = describe("python benchmarks/upload_contexts.py", ("flwr", "numpy", "torch"))
    head = f"| {' | '.join(COLUMNS)} |\n| --- {'| ---: ' * (len(COLUMNS) - 1)}|"
    text = HEAD + "\n".join([head, *lines, VERDICT, told])
    PAGE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
