"""What frames of small models hold beside their integers, byte by byte.

Updates are real: one device's of four, which `record_updates.py` records first. Each is
coded as Caesar codes it, compact, with what both sides remember and without. What the
integers take by themselves is the ideal length of their symbols under the tables that
are used, and their raw bits; everything else is side information: what the block says
of contexts, signs and scales, what it says of tables, and what lanes, numbers and the
filling up of bytes cost beside the ideal. The head of a frame, with the codec's
configuration and digests, stands beside it, as it is and as it travels, shortened
(`transport.short`). The table of docs/benchmarks/side-information.md is replaced.

    python benchmarks/side_information.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from environment import describe

sys.path.insert(0, str(Path(__file__).parents[1]))

from flwr_caesar.codec import CodecState, get_codec
from flwr_caesar.codec.coding import compact_block
from flwr_caesar.codec.coding.compact_scales import Levels
from flwr_caesar.codec.coding.compact_symbols import pack_raw
from flwr_caesar.codec.coding.counts import count_symbols
from flwr_caesar.codec.coding.tables import SCALE, normalise
from flwr_caesar.codec.contract.frame import FrameReader, head_size
from flwr_caesar.codec.contract.layout import Layout
from flwr_caesar.transport.short import shorten

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "side-information.md"
RECORD = Path(__file__).with_name("record_updates.py")
RULE = "| --- | ---: | --- |" + " ---: |" * 8 + "\n"
MODELS = {
    "logistic": "logistic regression",
    "mlp10k": "perceptron",
    "cnn10k": "CNN",
    "adapters": "adapters of rank 4",
}
ERRORS = 0.5, 0.2, 0.05
ROUND = 4

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass
class Parts:
    """Bytes of a compact block."""

    scales: int = 0
    tables: int = 0
    words: int = 0
    ideal: float = 0.0
    numbers: dict[str, int] = field(default_factory=dict)


@contextmanager
def watched() -> Iterator[Parts]:
    """Note what the next block is made of."""
    parts = Parts()
    to_bytes, encode_words = Levels.to_bytes, compact_block.encode_words
    choose = compact_block.CompactTables.choose

    def scales(levels: Levels, kinds: Any) -> tuple[bool, bytes]:
        found = to_bytes(levels, kinds)
        parts.scales = len(found[1])
        return found

    def tables(counts: Any) -> Any:
        found = choose(counts)
        parts.tables = len(found.told)
        parts.numbers = {"contexts": found.contexts.size}
        return found

    def words(symbols: Any, far: Any, contexts: Any, codes: Any, bits: float) -> bytes:
        found = encode_words(symbols, far, contexts, codes, bits)
        counts = count_symbols(symbols, contexts, len(codes))
        used = counts.any(axis=1)
        seen = counts[used] > 0
        shares = normalise(codes[used])[:, : counts.shape[1]][seen] / SCALE
        ideal = -(counts[used][seen] * np.log2(shares)).sum() / 8
        parts.ideal = float(ideal) + len(pack_raw(far))
        parts.words = len(found)
        return found

    with ExitStack() as stack:
        for place, name, own in (
            (Levels, "to_bytes", scales),
            (compact_block, "encode_words", words),
            (compact_block.CompactTables, "choose", tables),
        ):
            stack.enter_context(patch.object(place, name, own))
        yield parts


def rounds(folder: Path) -> list[Arrays]:
    """Return the updates of a folder."""
    return [dict(np.load(path)) for path in sorted(folder.glob("round_*.npz"))]


def config_of(error: float, *, memory: bool) -> dict[str, Any]:
    """Return the codec that Caesar asks for."""
    config = {
        **{"id": "lattice", "nmse": error, "exact_below": 0, "fine_below": 1024},
        **{"dead_zone": 0.5, "compact": True},
    }
    return config | ({"memory": True} if memory else {})


def row(label: str, updates: list[Arrays], error: float, *, memory: bool) -> str:
    """Return a line of the table, of the last of some rounds."""
    codec = get_codec(config_of(error, memory=memory))
    state = CodecState(Layout.of(updates[0]))
    for update in updates:
        with watched() as parts:
            frame, state = codec.encode(update, state)
    reader = FrameReader(frame)
    is_small = "RICE" in reader
    stored = len(reader_section(frame, "RICE" if is_small else "CMPT"))
    head = len(frame) - stored
    travels = len(shorten(frame, head=head_size(frame))) - stored
    name = f"{label} | {error} | {'yes' if memory else 'no'} | {len(frame):,}"
    if is_small:
        return f"| {name} | {head} | {travels} | {stored:,} | without tables | | | | |"
    beside = stored - parts.scales - parts.tables - parts.words
    lanes = parts.words - parts.ideal
    side = stored - parts.ideal
    return (
        f"| {name} | {head} | {travels} | {stored:,} | {beside} | {parts.scales} | "
        f"{parts.tables} ({parts.numbers['contexts']}) | {lanes:.0f} | "
        f"{100 * side / stored:.0f} % |"
    )


def reader_section(frame: bytes, tag: str) -> bytes:
    """Return the stored bytes of a section, which is the last of a frame."""
    entry = frame.index(tag.encode().ljust(4, b"\0"))
    size = int.from_bytes(frame[entry + 13 : entry + 21], "little")
    return frame[-4 - size : -4]


def main() -> None:
    """Record where that was not done, measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(".cache/updates"))
    args = parser.parse_args()
    options = ["--rounds", "5", "--devices", "4", "--lr", "0.05"]
    options += ["--batch-size", "32", "--threads", "1"]
    lines = []
    for model, label in MODELS.items():
        if not (args.folder / model).exists():
            command = [sys.executable, str(RECORD), "--model", model, *options]
            subprocess.run([*command, "--folder", str(args.folder)], check=True)
        updates = rounds(args.folder / model)[:ROUND]
        n = sum(array.size for array in updates[0].values())
        for error in ERRORS:
            for memory in False, True:
                found = row(f"{label}, {n:,}", updates, error, memory=memory)
                lines.append(found)
                print(found, flush=True)
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(RULE) + len(RULE)
    rest = text[text.index("\n\n", start - 1) :].rsplit("\n\n", 1)[0]
    closing = describe("python benchmarks/side_information.py", ("numpy",))
    table = "\n".join(lines)
    PAGE.write_text(f"{text[:start]}{table}{rest}\n\n{closing}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
