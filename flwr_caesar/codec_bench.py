"""What a codec makes of real updates: bytes, error and speed, of real frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .codec import Codec, CodecError, ErrorFeedback, Layout
from .codec.contract.bounds import error_over_bound
from .codec.contract.layout import Array, Arrays
from .codec_peers import Peer


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


def measure(
    codec: Codec | ErrorFeedback | Peer, rounds: Sequence[Arrays]
) -> tuple[list[Measurement], Measurement, float | None]:
    """Send successive rounds through a codec, with separate encoder and decoder.

    Parameters
    ----------
    codec : Codec, ErrorFeedback or Peer
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
    encoder: Any = None
    decoder: Any = None
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
    codec: Codec | ErrorFeedback | Peer, arrays: Arrays, decoded: Arrays
) -> float | None:
    if isinstance(codec, ErrorFeedback):
        return None
    return error_over_bound(codec, arrays, decoded)
