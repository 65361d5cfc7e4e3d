"""Hostile frames to both readers: what each makes of them has to be the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flwr_caesar.codec import (
    CodecError,
    CodecState,
    Layout,
    StateMismatchError,
    get_codec,
)
from flwr_caesar.codec.conformance.mutate import mutate
from flwr_caesar.codec.contract.digest import model_digest
from flwr_caesar.codec.published.lattice_model import decode_model

from .jvm import Jvm

VECTORS = Path(__file__).parents[1] / "vectors"
CODECS = ("dense", "lattice", "prune", "topk")
_PUBLISHED = ("lattice_model", "lattice_model_steps")
_DENSE = get_codec("dense")
MAX_BYTES = 1 << 26
"""Of tensors, that either reader believes a frame's own table."""

EXPLAINED = {
    "zstd literals": (
        "zstd's library does not look whether a Huffman stream ends with its last "
        "symbol, where it decodes four at once; RFC 8878 says that one which does not "
        "is corrupt (4.2.2), and the core refuses it"
    ),
}
"""What the core refuses and the reference may decode, by the core's words."""


@dataclass(frozen=True)
class Sample:
    """A good frame, and what its reader is told beforehand.

    Parameters
    ----------
    name : str
        Of the golden frame.
    frame : bytes
        The frame.
    config : mapping
        Of its codec; only the id for a published model.
    layout : Layout, optional
        Tensors that the reader expects.
    base : mapping of str to ndarray, optional
        Model that the reader holds.
    """

    name: str
    frame: bytes
    config: dict[str, Any]
    layout: Layout | None = None
    base: dict[str, Any] | None = None


def samples() -> list[Sample]:
    """Return all golden frames of the codecs that a phone has.

    Those with a table once for a reader that expects nothing, and once for one that
    knows the tensors.
    """
    found: list[Sample] = []
    for codec in CODECS:
        for folder in sorted(VECTORS.glob(f"{codec}/*")):
            config = json.loads((folder / "config.json").read_text())
            layout: Layout | None = None
            for path in sorted(folder.glob("frame-*.bin")):
                frame = path.read_bytes()
                name = path.relative_to(VECTORS).as_posix()
                if layout is not None and config.get("memory"):
                    break  # a phone has no memory to read the next ones by
                known = None if layout is None else CodecState(layout)
                _, state = get_codec(config).decode(frame, known)
                if layout is None:
                    found.append(Sample(name, frame, config))
                layout = state.layout
                found.append(Sample(f"{name} expected", frame, config, layout))
    for folder_name in _PUBLISHED:
        base: dict[str, Any] | None = None
        for path in sorted((VECTORS / folder_name).glob("frame-*.bin")):
            frame = path.read_bytes()
            name = path.relative_to(VECTORS).as_posix()
            found.append(Sample(name, frame, {"id": "lattice_model"}, None, base))
            base = decode_model(frame, base)
    return found


def mutants(
    sample: Sample, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, bytes]]:
    """Yield hostile relatives of a sample's frame, and of which kind they are."""
    for _ in range(count):
        yield mutate(sample.frame, rng)


def reference(sample: Sample, frame: bytes) -> str:
    """Return what the reader in Python makes of a frame, in a word."""
    try:
        if sample.config["id"] == "lattice_model":
            arrays = decode_model(
                frame, sample.base, expected=sample.layout, max_bytes=MAX_BYTES
            )
        else:
            state = None if sample.layout is None else CodecState(sample.layout)
            arrays, _ = get_codec(sample.config).decode(
                frame, state, max_bytes=MAX_BYTES
            )
    except StateMismatchError:
        return "lacks"
    except CodecError:
        return "refused"
    return model_digest(arrays).hex()


def core(jvm: Jvm, sample: Sample, frame: bytes) -> tuple[str, str]:
    """Return what the core makes of a frame, in a word, and why."""
    blobs = [
        frame,
        b"" if sample.base is None else _DENSE.encode(sample.base, finite=False)[0],
        b"" if sample.layout is None else sample.layout.to_bytes(),
    ]
    values = jvm.ask(
        "decode", blobs, codec=sample.config, brief=True, limit=MAX_BYTES
    ).values
    for outcome in ("lacks", "refused"):
        if outcome in values:
            return outcome, values[outcome]
    return values["digest"], ""


@dataclass
class Comparison:
    """What both made of many frames.

    Attributes
    ----------
    outcomes : Counter
        How many mutants of each kind were decoded, refused, or found to lack a state.
    explained : Counter
        How many of them the two made something else of, as `EXPLAINED` says.
    differences : list of str
        Each other mutant of which they did, with what each said.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def run(self, jvm: Jvm, found: Sequence[Sample], each: int, seed: int) -> None:
        """Compare `each` mutants of each sample, those of a seed."""
        for number, sample in enumerate(found):
            rng = np.random.default_rng([seed, number])
            for index, (kind, frame) in enumerate(mutants(sample, each, rng)):
                theirs = reference(sample, frame)
                ours, why = core(jvm, sample, frame)
                word = theirs if theirs in ("lacks", "refused") else "decoded"
                self.outcomes[kind, word] += 1
                reason = next((words for words in EXPLAINED if words in why), None)
                if ours != theirs and word == "decoded" and reason:
                    self.explained[reason] += 1
                elif ours != theirs:
                    self.differences.append(
                        f"{sample.name}, seed {seed}, mutant {index} ({kind}): "
                        f"reference {theirs}, core {ours} {why}"
                    )
