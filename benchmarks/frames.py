"""What this machine's codecs write and read, to compare it with another machine.

`benchmarks/aarch64.py` runs it on two kinds of processor: first without an argument,
then on the other one with what the first one printed, so that both encode the same
arrays, and the second decodes the first one's frames.

    python benchmarks/frames.py [first.json] > second.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from flwr_caesar.codec import CodecState, get_codec
from flwr_caesar.codec.contract.layout import to_dtype
from tests.vectors.make import CASES, describe


def coded(name: str, first: dict[str, Any] | None) -> dict[str, Any]:
    """Return one case's inputs, frames and what they decode to, by round.

    Parameters
    ----------
    name : str
        Of the case in tests/vectors/make.py.
    first : dict, optional
        What another machine returned; its inputs are taken and its frames decoded.
    """
    config, samples = CASES[name]
    codec = get_codec(config)
    if first is None:
        rng = np.random.default_rng(0)
        inputs = [describe(sample(rng)) for sample in samples]
    else:
        inputs = first["inputs"]
    sender: CodecState | None = None
    frames = []
    for given in inputs:
        frame, sender = codec.encode(_arrays(given), sender)
        frames.append(frame.hex())
    told = {"inputs": inputs, "frames": frames}
    return {**told, "arrays": _decoded(name, first["frames"] if first else frames)}


def _decoded(name: str, frames: list[str]) -> list[Any]:
    codec = get_codec(CASES[name][0])
    receiver: CodecState | None = None
    rounds = []
    for frame in frames:
        arrays, receiver = codec.decode(bytes.fromhex(frame), receiver)
        rounds.append(describe(arrays))
    return rounds


def _arrays(described: list[dict[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    return {
        one["name"]: np.frombuffer(bytes.fromhex(one["hex"]), to_dtype(one["dtype"]))
        .astype(to_dtype(one["dtype"]).newbyteorder("="))
        .reshape(one["shape"])
        for one in described
    }


def main() -> None:
    """Print all cases as JSON."""
    first = json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else {}
    json.dump({name: coded(name, first.get(name)) for name in CASES}, sys.stdout)


if __name__ == "__main__":
    main()
