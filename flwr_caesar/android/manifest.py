"""What a phone has to know of a program, as JSON beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flwr_caesar

from .functional import Functional
from .lowering import Lowered
from .parity import Batches, Parity

FORMAT = 1
MANIFEST, PROGRAM = "manifest.json", "program.pte"


@dataclass(frozen=True)
class Named:
    """What was asked for, by name: of the model and of the loss."""

    model: str
    loss: str


def manifest(
    named: Named,
    functional: Functional,
    batches: Batches,
    lowered: Lowered,
    parity: Parity,
) -> dict[str, Any]:
    """Return the manifest of a program; docs/android.md says what each key means."""
    integers = batches.integers
    return {
        "format": FORMAT,
        "model": named.model,
        "loss": named.loss,
        "classes": batches.classes,
        "batch": batches.size,
        "full_batches": batches.full,
        "input": {
            "shape": list(batches.shape),
            "dtype": "float32" if integers is None else "int64",
            **({} if integers is None else {"below": integers}),
        },
        "tensors": [
            {
                "name": entry.name,
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "role": entry.role,
            }
            for entry in functional.entries
        ],
        "program": {
            "file": PROGRAM,
            "sha256": hashlib.sha256(lowered.data).hexdigest(),
            "bytes": len(lowered.data),
            "memory": lowered.memory,
            "operators": list(lowered.operators),
        },
        "parity": {
            "steps": parity.steps,
            "tolerance": parity.tolerance,
            "absolute": parity.absolute,
            "kinks": parity.kinks,
            **parity.figures(),
        },
        "versions": {
            "flwr-caesar": flwr_caesar.__version__,
            "torch": version("torch"),
            "executorch": version("executorch"),
        },
    }


def write(folder: Path, lowered: Lowered, found: dict[str, Any]) -> None:
    """Write a program and its manifest, the manifest last.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The manifest has the program's digest: what is of two writes is not used.
    text = json.dumps(found, indent=2) + "\n"
    for name, data in ((PROGRAM, lowered.data), (MANIFEST, text.encode())):
        new = folder / f"{name}.new"
        new.write_bytes(data)
        new.replace(folder / name)
