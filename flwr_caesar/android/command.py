"""``flwr-caesar export-android``: a torch model as a training program for phones."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ExportError
from .export import Export, export
from .losses import LOSSES
from .lowering import require_executorch
from .manifest import MANIFEST, PROGRAM, write
from .models import make, names
from .parity import TOLERANCE

_DESCRIPTION = f"""\
Make of a torch model what a phone trains with: {PROGRAM}, run by ExecuTorch, and
{MANIFEST}, which says what goes in and comes out. The weights are inputs, so the same
files serve every model that the server sends. The program is run here for 20 steps
beside torch, and nothing is written if it computes anything else.
"""
_EXAMPLES = """\
examples:
  flwr-caesar export-android cnn --example-shape 1x28x28 --classes 10 -o assets/cnn
  flwr-caesar export-android my_app.task:Net --example-shape 3x32x32 -o assets/net
  flwr-caesar export-android my_app.task:Text --example-shape 80 --integers 256 -o text

It needs ExecuTorch: pip install 'flwr-caesar[android]'. docs/android.md has the rest.
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar export-android`` with these arguments.

    Returns
    -------
    int
        0, or 1 if the model cannot be exported or the folder not be written.
    """
    given = _parser().parse_args(arguments)
    try:
        require_executorch()
        model = make(given.model, given.example_shape, given.classes)
        made = export(
            model,
            given.example_shape,
            name=given.model,
            batch=given.batch,
            classes=given.classes,
            loss=given.loss,
            integers=given.integers,
            without_dropout=given.without_dropout,
            tolerance=given.tolerance,
        )
        write(given.output, made.lowered, made.manifest)
    except (ExportError, OSError) as error:
        print(f"flwr-caesar export-android: {error}", file=sys.stderr)
        return 1
    print(_told(made, given.output))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar export-android",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        help="package.module:function that returns a torch.nn.Module, or one of the "
        f"reference app's models: {', '.join(names())}",
    )
    parser.add_argument(
        "--example-shape",
        type=_shape,
        required=True,
        metavar="1x28x28",
        help="shape of one input, without the batch",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=32,
        help="examples of a batch; a phone fills up smaller ones and takes larger ones "
        "apart (default: 32)",
    )
    parser.add_argument(
        "--classes", type=int, help="labels are below it; checked against the outputs"
    )
    parser.add_argument(
        "--loss",
        choices=LOSSES,
        default="cross_entropy",
        help="of logits (default: cross_entropy)",
    )
    parser.add_argument(
        "--integers",
        type=int,
        metavar="N",
        help="inputs are whole numbers below N, such as tokens, not real numbers",
    )
    parser.add_argument(
        "--without-dropout",
        action="store_true",
        help="switch dropout off; without this a model that has it is refused",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"largest relative difference from torch (default: {TOLERANCE:g})",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder to write into"
    )
    return parser


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: write it as 1x28x28")
    return tuple(int(side) for side in text.split("x"))


def _told(made: Export, folder: Path) -> str:
    found = made.manifest
    program, parity = found["program"], found["parity"]
    lines = [
        f"{folder / PROGRAM}: {program['bytes'] / 1e3:.0f} kB, batches of "
        f"{found['batch']}, {program['memory'] / 1e6:.1f} MB of memory in a step",
        f"{folder / MANIFEST}: {len(found['tensors'])} tensors",
        f"Over {parity['steps']} steps beside torch the gradients differed by at most "
        f"{parity['gradients']:.1g} of the largest.",
    ]
    if found["full_batches"]:
        lines.append(
            "The model keeps statistics of its batches (batch normalisation): a phone "
            "trains on full batches only."
        )
    return "\n".join(lines)
