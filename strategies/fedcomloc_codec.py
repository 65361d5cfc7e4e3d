"""FedComLoc's compressor as a codec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr_caesar.codec import Codec, CodecError, get_codec


def named_codec(config: Mapping[str, Any] | str, *, exact_below: int) -> Codec:
    """Return a codec of the registry as ``C``.

    Parameters
    ----------
    config : mapping or str
        See `flwr_caesar.codec.get_codec`.
    exact_below : int
        Tensors of fewer elements are not compressed, unless `config` says otherwise.

    Raises
    ------
    CodecError
        If there is no such codec, or it refuses a parameter.
    """
    try:
        codec = get_codec(config)
        if "exact_below" not in codec.parameters:
            return codec
        own = {"id": config} if isinstance(config, str) else config
        return get_codec({"exact_below": exact_below, **own})
    except CodecError as err:
        raise CodecError(f"codec: {err}") from err


def model_codec(
    *,
    density: float,
    bits: int,
    bucket: int | None = None,
    values: str = "float16",
    exact_below: int = 1024,
) -> Codec:
    """Return FedComLoc's compressor ``C`` as a codec: what it decodes to is ``C(x)``.

    Parameters
    ----------
    density, bits, bucket, values, exact_below
        See `flwr_caesar.strategies.FedComLoc`. Below density 1 it is TopK; below 32
        bits ``Q_r``, of what TopK kept if there is both; with neither, exact.

    Raises
    ------
    CodecError
        If one is out of range.
    """
    both = {"density": density, "exact_below": exact_below}
    kept = get_codec({"id": "topk", "values": values, **both})
    if bits == 32:
        return get_codec("dense") if density == 1 else kept
    if not isinstance(bits, int) or not 1 <= bits <= 16:
        raise CodecError(f"bits must be 1 to 16, or 32 for none, not {bits}")
    if bucket is None:
        bucket = round(default_bucket(bits) / density)
    levels = {"levels": 1 << bits, "norm": "l2", "bucket": bucket}
    return get_codec({"id": "qsgd", **levels, **both})


def default_bucket(bits: int) -> int:
    """Return how many elements should share a norm at so many bits.

    The squared error of rounding `n` elements of like size is about
    ``n / (6 * 4^bits)`` of their own square. With ``4^bits / 32`` of them it is 0.5 %.
    A norm of fewer than 64 would cost more than half a bit for each: at 4 bits the
    error is 4 %, which the mean over some devices makes small. Below, it is 16.
    """
    return max(64 if bits >= 4 else 16, (1 << 2 * bits) // 32)
