"""What `flwr-caesar codec bench` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from .codec import kernel
from .codec_bench import Measurement

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
    f"/ ||x||^2. MB/s: array bytes, 10^6, on this machine, by {kernel.in_use}."
)
_OF_SUM = (
    " nmse_of_sum: of the sum of all rounds, in which what error feedback sends later "
    "counts as sent."
)


def side_by_side(
    results: Sequence[tuple[str, Measurement, float | None]],
) -> str:
    """Return a table with a row for each codec, of all its rounds together.

    Parameters
    ----------
    results : sequence of tuple of str, Measurement and float or None
        What each is called, its total, and the NMSE of the sum of its rounds.
    """
    rows = [["codec", *(name for name, _ in _COLUMNS), "nmse_of_sum"]]
    for name, total, sum_nmse in results:
        last = "-" if sum_nmse is None else f"{sum_nmse:.4g}"
        rows.append([name, *_cells(total), last])
    return "\n".join([*_aligned(rows, names=True), "", _NOTE + _OF_SUM])


def one_codec(
    described: str,
    measured: Sequence[Measurement],
    total: Measurement,
    sum_nmse: float | None,
) -> str:
    """Return a table with a row for each round of one codec, and one of their total.

    Parameters
    ----------
    described : str
        What the codec is, above the table.
    measured : sequence of Measurement
        Of each round.
    total : Measurement
        Of all together.
    sum_nmse : float or None
        NMSE of the sum of all rounds.
    """
    labels = [*map(str, range(1, len(measured) + 1)), "total"]
    rows = [["round", *(name for name, _ in _COLUMNS)]]
    for label, measurement in zip(labels, [*measured, total], strict=True):
        rows.append([label, *_cells(measurement)])
    tail = (
        "" if sum_nmse is None else f" nmse of the sum of all rounds: {sum_nmse:.4g}."
    )
    return "\n".join([described, "", *_aligned(rows), "", _NOTE + tail])


def _cells(measurement: Measurement) -> list[str]:
    values = asdict(measurement)
    return [
        "-" if values[name] is None else form.format(values[name])
        for name, form in _COLUMNS
    ]


def _aligned(rows: Sequence[Sequence[str]], *, names: bool = False) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if names and i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
