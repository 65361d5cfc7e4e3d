"""`flwr-caesar codec`: which codecs there are, and what one does to your updates."""

from __future__ import annotations

import argparse
import json
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .codec import Codec, CodecError, ErrorFeedback, Layout, get_codec, list_codecs
from .codec.contract.bounds import error_over_bound
from .codec.contract.layout import Array, Arrays

_COLUMNS = (
    ("bytes", "{:,}"),
    ("ratio", "{:.2f}"),
    ("bits_per_param", "{:.3f}"),
    ("nmse", "{:.4g}"),
    ("max_error_over_bound", "{:.4f}"),
    ("encode_mb_s", "{:.0f}"),
    ("decode_mb_s", "{:.0f}"),
)
_NOTE = (
    "bytes: whole frames. ratio: bytes of the arrays / bytes. nmse: ||x - decoded||^2 "
    "/ ||x||^2. MB/s: array bytes, 10^6, on this machine."
)
_BENCH = """\
Send the arrays of each file through a codec as one round of one device, with an
encoder and a decoder that share nothing but the frames, and print for every round and
in total: bytes, ratio, bits a parameter, error, and speed on this machine.
"""
_EXAMPLE = """\
A file is what numpy.savez(path, **{name: array, ...}) writes: an update (model after
training minus model before), or a whole model.

examples:
  flwr-caesar codec bench round-*.npz --codec topk --set density=0.01 --error-feedback
  flwr-caesar codec bench round-*.npz --codec error_bounded --set rel=1e-3
  flwr-caesar codec bench model.npz --codec rotated --set bits=4 --json
"""


@dataclass(frozen=True)
class Measurement:
    """What a codec did to one round, or to all rounds together.

    Parameters
    ----------
    bytes : int
        Length of the frames.
    ratio : float
        Bytes of the arrays divided by `bytes`.
    bits_per_param : float
        Eight times `bytes` divided by the number of elements.
    nmse : float, optional
        ``||x - decoded||^2 / ||x||^2`` over the floating-point tensors; `None` if
        these are all zero.
    max_error_over_bound : float, optional
        Largest error divided by the bound that the codec states for that element;
        `None` if it states none.
    encode_mb_s, decode_mb_s : float
        Megabytes (10^6) of arrays a second.
    """

    bytes: int
    ratio: float
    bits_per_param: float
    nmse: float | None
    max_error_over_bound: float | None
    encode_mb_s: float
    decode_mb_s: float


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
    listing = commands.add_parser("list", help="installed codecs and their defaults")
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
        metavar="FILE.npz",
        help="successive rounds of one device's update: arrays by tensor name",
    )
    bench.add_argument("--codec", required=True, metavar="ID", help="see `codec list`")
    bench.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the codec, as JSON or text; repeatable",
    )
    bench.add_argument(
        "--error-feedback",
        action="store_true",
        help="add what a round left out to the next round's input",
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


def load_arrays(path: str | Path) -> dict[str, Array]:
    """Read the arrays of an ``.npz`` file without unpickling anything.

    Raises
    ------
    CodecError
        If the file is missing, not an ``.npz`` file, or holds pickled objects.
    """
    try:
        if not zipfile.is_zipfile(path):
            Path(path).stat()
            raise CodecError(f"{path}: not an .npz file")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as err:
        raise CodecError(f"{path}: {err.strerror or err}") from err
    except CodecError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile) as err:
        raise CodecError(f"{path}: {err}") from err


def measure(
    codec: Codec | ErrorFeedback, rounds: Sequence[Arrays]
) -> tuple[list[Measurement], Measurement, float | None]:
    """Send successive rounds through a codec, with separate encoder and decoder.

    Parameters
    ----------
    codec : Codec or ErrorFeedback
        The codec; one that is given the arrays unchanged may state a bound.
    rounds : sequence of mapping
        Arrays by tensor name, one mapping a round, all of the same tensors.

    Returns
    -------
    tuple of list of Measurement, Measurement and float or None
        Each round, all rounds together, and the NMSE of the sum of all rounds, in
        which what error feedback sends later counts as sent.

    Raises
    ------
    CodecError
        If the tensors differ between rounds, or cannot be encoded.
    """
    expected = Layout.of(rounds[0])
    encoder = decoder = None
    tallies = []
    sum_in: dict[str, Array] = {}
    sum_out: dict[str, Array] = {}
    for number, arrays in enumerate(rounds, 1):
        if Layout.of(arrays) != expected:
            raise CodecError(f"round {number} has other tensors than round 1")
        start = time.perf_counter()
        frame, encoder = codec.encode(arrays, encoder)
        encoded = time.perf_counter()
        decoded, decoder = codec.decode(frame, decoder)
        finished = time.perf_counter()
        tallies.append(
            _Tally(
                size=len(frame),
                error=_energy(arrays, decoded),
                energy=_energy(arrays),
                over_bound=_over_bound(codec, arrays, decoded),
                encode=encoded - start,
                decode=finished - encoded,
            )
        )
        for spec in expected.tensors:
            if spec.is_float:
                wide = arrays[spec.name].astype(np.float64)
                sum_in[spec.name] = sum_in.get(spec.name, 0) + wide
                sum_out[spec.name] = sum_out.get(spec.name, 0) + decoded[
                    spec.name
                ].astype(np.float64)
    measured = [_summarise([tally], expected) for tally in tallies]
    total_energy = _energy(sum_in)
    sum_nmse = _energy(sum_in, sum_out) / total_energy if total_energy else None
    return measured, _summarise(tallies, expected), sum_nmse


@dataclass(frozen=True)
class _Tally:
    size: int
    error: float
    energy: float
    over_bound: float | None
    encode: float
    decode: float


def _summarise(tallies: Sequence[_Tally], layout: Layout) -> Measurement:
    size = sum(t.size for t in tallies)
    nbytes = layout.nbytes * len(tallies)
    energy = sum(t.energy for t in tallies)
    over = [t.over_bound for t in tallies if t.over_bound is not None]
    return Measurement(
        bytes=size,
        ratio=nbytes / size,
        bits_per_param=8 * size / max(layout.num_params * len(tallies), 1),
        nmse=sum(t.error for t in tallies) / energy if energy else None,
        max_error_over_bound=max(over) if over else None,
        encode_mb_s=nbytes / 1e6 / sum(t.encode for t in tallies),
        decode_mb_s=nbytes / 1e6 / sum(t.decode for t in tallies),
    )


def _energy(arrays: Arrays, minus: Arrays | None = None) -> float:
    total = 0.0
    for name, array in arrays.items():
        if array.dtype.kind not in "biu":
            wide = array.astype(np.float64)
            if minus is not None:
                wide = wide - minus[name].astype(np.float64)
            total += float(np.square(wide).sum())
    return total


def _over_bound(
    codec: Codec | ErrorFeedback, arrays: Arrays, decoded: Arrays
) -> float | None:
    if not isinstance(codec, Codec):
        return None
    return error_over_bound(codec, arrays, decoded)


def _bench(args: argparse.Namespace) -> str:
    parameters = parse_settings(args.set)
    if "id" in parameters:
        raise CodecError("--set id=…: name the codec with --codec")
    codec: Codec | ErrorFeedback = get_codec({"id": args.codec, **parameters})
    if args.error_feedback:
        codec = ErrorFeedback(codec)  # type: ignore[arg-type]
    rounds = [load_arrays(path) for path in args.files]
    if not Layout.of(rounds[0]).num_params:
        raise CodecError(f"{args.files[0]}: holds no elements")
    measured, total, sum_nmse = measure(codec, rounds)
    if args.json:
        return json.dumps(
            {
                "codec": codec.config,
                "error_feedback": args.error_feedback,
                "rounds": [
                    {"file": str(path), **asdict(m)}
                    for path, m in zip(args.files, measured, strict=True)
                ],
                "total": {**asdict(total), "nmse_of_sum": sum_nmse},
            },
            indent=2,
        )
    return _table(codec.config, measured, total, sum_nmse)


def _table(
    config: Mapping[str, Any],
    measured: Sequence[Measurement],
    total: Measurement,
    sum_nmse: float | None,
) -> str:
    rows = [["round", *(name for name, _ in _COLUMNS)]]
    labels = [*map(str, range(1, len(measured) + 1)), "total"]
    for label, measurement in zip(labels, [*measured, total], strict=True):
        values = asdict(measurement)
        rows.append(
            [
                label,
                *(
                    "-" if values[name] is None else form.format(values[name])
                    for name, form in _COLUMNS
                ),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    tail = (
        "" if sum_nmse is None else f" nmse of the sum of all rounds: {sum_nmse:.4g}."
    )
    return "\n".join([json.dumps(dict(config)), "", *lines, "", _NOTE + tail])
