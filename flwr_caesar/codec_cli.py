"""`flwr-caesar codec`: which codecs there are, and what one does to your updates."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .codec import (
    Codec,
    CodecError,
    ErrorFeedback,
    Layout,
    get_codec,
    list_codecs,
)
from .codec_bench import Measurement, measure
from .codec_inputs import SUFFIXES, load_arrays
from .codec_peers import PEERS, Peer, get_peer
from .codec_tables import one_codec, side_by_side

_MODEL = "model"
# What --all draws a line through; other codecs are taken at their defaults.
_SETTINGS = {
    "caesar_model": tuple(f"drop_fraction={x}" for x in (0.3, 0.6, 0.9)),
    "correlation": tuple(f"density={x}" for x in (0.01, 0.05, 0.2)),
    "error_bounded": tuple(f"rel={x}" for x in (0.001, 0.01, 0.1)),
    "lattice": tuple(f"nmse={x}" for x in (0.01, 0.05, 0.2, 0.5)),
    "prune": tuple(f"prune_rate={x}" for x in (0.3, 0.5, 0.9)),
    "qsgd": tuple(f"levels={x} bucket=512" for x in (1, 7, 127)),
    "quantized": tuple(f"bits={x}" for x in (2, 4, 8)),
    "rotated": tuple(f"bits={x} scale=least_squares" for x in (1, 2, 4)),
    "nncodec": tuple(f"nmse={x}" for x in (0.01, 0.05, 0.2)),
    "sz3": tuple(f"rel={x}" for x in (0.001, 0.01, 0.1)),
    "ternary": tuple(f"density={x}" for x in (0.01, 0.05, 0.2)),
    "topk": tuple(f"density={x} values=float16" for x in (0.01, 0.05, 0.2, 0.5)),
}
_BENCH = """\
Send the arrays of each file through a codec as one round of one device, with an
encoder and a decoder that share nothing but the frames, and print for every round and
in total: bytes, ratio, bits a parameter, error, and speed on this machine. Several
codecs, or strategies, come side by side in one table of totals.
"""
_EXAMPLE = """\
A file has an update (model after training minus model before), or a whole model: what
numpy.savez(path, **{name: array, ...}) writes, safetensors, or a checkpoint of torch.
An app writes the updates of its devices with
ClientApp(mods=[CompressionMod(record="updates")]).

--as takes the codec and the error feedback that the strategy uses for a model of this
size. Of --peer, large float32 tensors are coded by it, and all others counted as our
codec dense packs them.

examples:
  flwr-caesar codec bench updates/node-7/round-*.npz --as caesar --as topk
  flwr-caesar codec bench round-*.npz --codec lattice --codec "topk density=0.01"
  flwr-caesar codec bench round-*.npz --codec topk --set density=0.01 --error-feedback
  flwr-caesar codec bench round-*.npz --codec error_bounded --set rel=1e-3
  flwr-caesar codec bench round-*.npz --codec error_bounded --peer sz3 --peer nncodec
  flwr-caesar codec bench model.safetensors --codec rotated --set bits=4 --json
  flwr-caesar codec bench round-*.npz --all --picture codecs.png
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``flwr-caesar codec``.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``flwr-caesar codec``.

    Returns
    -------
    int
        Exit status: 0, 1 if a file or a codec's parameter is unusable, 2 (as
        `SystemExit`) for a mistake in the command.
    """
    return _run(_parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flwr-caesar codec",
        description="Codecs turn named arrays into frames: list them, or measure one.",
    )
    commands = parser.add_subparsers(
        dest="codec_command", required=True, metavar="COMMAND"
    )
    listing = commands.add_parser(
        "list",
        help="installed codecs and their defaults",
        description="List the installed codecs with their parameters and defaults.",
    )
    listing.add_argument("--json", action="store_true", help="machine-readable")
    bench = commands.add_parser(
        "bench",
        help="what a codec does to your own model or updates",
        description=_BENCH,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="successive rounds of one device's update, or a model: arrays by tensor "
        f"name, in {', '.join(SUFFIXES)}",
    )
    bench.add_argument(
        "--codec",
        action=_Candidate,
        metavar="ID",
        help='see `codec list`; with parameters: "topk density=0.01"; repeatable',
    )
    bench.add_argument(
        "--as",
        action=_Candidate,
        metavar="STRATEGY",
        help='as a strategy sends: caesar, "caesar rate=0.5"; repeatable',
    )
    bench.add_argument(
        "--peer",
        action=_Candidate,
        metavar="NAME",
        help=f'a codec of others: {", ".join(PEERS)}, "nncodec nmse=0.2"; repeatable',
    )
    bench.add_argument(
        "--all",
        action="store_true",
        help="every codec at several settings, and the peers that are installed",
    )
    bench.add_argument(
        "--picture",
        metavar="FILE.png",
        help="draw bits against error; needs matplotlib",
    )
    bench.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of every codec or strategy, as JSON or text; repeatable",
    )
    bench.add_argument(
        "--error-feedback",
        action="store_true",
        help="add what a round left out to the next round's input (of --codec)",
    )
    bench.add_argument("--json", action="store_true", help="machine-readable")
    return parser


def _run(args: argparse.Namespace) -> int:
    try:
        if args.codec_command == "list":
            print(_list(as_json=args.json))
        else:
            print(_bench(args))
    except CodecError as err:
        print(f"flwr-caesar codec: {err}", file=sys.stderr)
        return 1
    return 0


def _list(*, as_json: bool) -> str:
    configs = [
        {"id": codec_id, **get_codec(codec_id).parameters} for codec_id in list_codecs()
    ]
    if as_json:
        return json.dumps(configs, indent=2)
    width = max(len(config["id"]) for config in configs)
    return "\n".join(
        " ".join(
            [
                f"{config['id']:{width}} ",
                *(f"{k}={json.dumps(v)}" for k, v in config.items() if k != "id"),
            ]
        ).rstrip()
        for config in configs
    )


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return parameters from ``key=value`` texts, each value JSON or else text.

    Raises
    ------
    CodecError
        If a text has no ``=``, or a key is repeated.
    """
    parameters: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key or key in parameters:
            raise CodecError(f"--set {setting}: expected KEY=VALUE, each key once")
        try:
            parameters[key] = json.loads(text)
        except json.JSONDecodeError:
            parameters[key] = text
    return parameters


@dataclass(frozen=True)
class _Named:
    """A codec to measure, and what to call it."""

    name: str
    codec: Codec | ErrorFeedback | Peer
    sends_models: bool = False

    @property
    def described(self) -> str:
        """The name, and what is behind it where that is more."""
        if isinstance(self.codec, ErrorFeedback):
            told = f"{self.codec.codec} with error feedback"
        elif isinstance(self.codec, Codec):
            told = str(self.codec)
        else:
            return self.name
        return told if told.startswith(self.name) else f"{self.name}: {told}"


class _Candidate(argparse.Action):
    """Keeps --codec, --as and --peer in the order in which they were given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        kept = getattr(namespace, "candidates", None) or []
        namespace.candidates = [*kept, (self.dest, values)]


def _candidates(args: argparse.Namespace, layout: Layout) -> list[_Named]:
    asked: list[tuple[str, str]] = getattr(args, "candidates", None) or []
    if args.all:
        asked = [*asked, *_everything(layout)]
    if not asked:
        raise CodecError(
            "name a codec with --codec, a strategy with --as, or take --all"
        )
    found = []
    for kind, text in asked:
        name, *settings = text.split()
        parameters = parse_settings([*settings, *args.set])
        if kind == "as":
            found.append(_as_strategy(name, parameters, layout, label=text))
            continue
        if kind == "peer":
            found.append(_Named(text, get_peer(name, parameters, layout)))
            continue
        if "id" in parameters:
            raise CodecError("--set id=…: name the codec with --codec")
        codec: Codec | ErrorFeedback = get_codec({"id": name, **parameters})
        if args.error_feedback:
            codec = ErrorFeedback(codec)  # type: ignore[arg-type]
        found.append(_Named(text, codec))
    return found


def _everything(layout: Layout) -> list[tuple[str, str]]:
    """Return every codec at several settings, and the peers that are installed."""
    found = [
        ("codec", f"{codec_id} {setting}".rstrip())
        for codec_id in list_codecs()
        for setting in _SETTINGS.get(codec_id, ("",))
    ]
    for peer in PEERS:
        try:
            get_peer(peer, {}, layout)
        except CodecError:
            continue
        found += [("peer", f"{peer} {setting}") for setting in _SETTINGS[peer]]
    return found


def _as_strategy(
    name: str, settings: Mapping[str, Any], layout: Layout, *, label: str
) -> _Named:
    """Return the codec with which a strategy's devices send such a model."""
    from flwr.serverapp.strategy import FedAvg

    from .methods import get_method

    try:
        method = get_method(name)
        made = method.load_strategy()(FedAvg(), **{**method.settings, **settings})
    except (LookupError, TypeError, ValueError) as err:
        raise CodecError(f"--as {name}: {err}") from err
    if made.method is None:
        return _Named(label, get_codec("dense"))
    codec = made.method.upload_for(layout)
    feedback = ErrorFeedback(codec) if made.method.error_feedback else codec
    return _Named(label, feedback, sends_models=made.method.payload == _MODEL)


def _bench(args: argparse.Namespace) -> str:
    rounds = [load_arrays(path) for path in args.files]
    layout = Layout.of(rounds[0])
    if not layout.num_params:
        raise CodecError(f"{args.files[0]}: holds no elements")
    results = []
    for number, named in enumerate(candidates := _candidates(args, layout), 1):
        if len(candidates) > 1 and sys.stderr.isatty():
            progress = f"{number} of {len(candidates)}: {named.name}"
            print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)
        results.append((named, measure(named.codec, rounds)))
    if len(candidates) > 1 and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if args.picture:
        _draw([(n.name, total) for n, (_, total, _) in results], Path(args.picture))
    if args.json:
        told = [
            {
                "codec": named.codec.config,
                "error_feedback": isinstance(named.codec, ErrorFeedback),
                "rounds": [
                    {"file": str(path), **asdict(m)}
                    for path, m in zip(args.files, measured, strict=True)
                ],
                "total": {**asdict(total), "nmse_of_sum": sum_nmse},
            }
            for named, (measured, total, sum_nmse) in results
        ]
        return json.dumps(told[0] if len(told) == 1 else {"codecs": told}, indent=2)
    models = [named.name for named in candidates if named.sends_models]
    note = ""
    if models:
        note = (
            f" {', '.join(models)}: sends whole models, so give it some, not updates."
        )
    if len(results) == 1:
        ((named, (measured, total, sum_nmse)),) = results
        return one_codec(named.described, measured, total, sum_nmse) + note
    return side_by_side([(n.name, t, s) for n, (_, t, s) in results]) + note


def _draw(results: Sequence[tuple[str, Measurement]], path: Path) -> None:
    try:
        from .codec_picture import draw
    except ImportError as err:
        raise CodecError(
            "--picture needs matplotlib: pip install 'flwr-caesar[plot]'"
        ) from err
    try:
        draw(results, path)
    except (OSError, ValueError) as err:
        raise CodecError(f"--picture {path}: {err}") from err
