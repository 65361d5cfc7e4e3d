"""The compressors of FedComLoc on torch tensors: what its codecs decode to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flwr_caesar.codec import get_codec
from flwr_caesar.codec.codecs.qsgd import QSGDCodec
from flwr_caesar.codec.codecs.topk import TopKCodec
from flwr_caesar.codec.quantisers.select import count_kept


def compressor(
    config: Mapping[str, Any] | str, *, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """Return a codec's compression of one tensor, as a function on torch tensors.

    `topk` gives exactly what the codec decodes to. `qsgd` gives a value of the same
    distribution: its random numbers are torch's, on the tensor's device.

    Parameters
    ----------
    config : mapping or str
        ``{"id": "topk", "density": 0.3}``, or ``{"id": "qsgd", "levels": 16, "norm":
        "l2"}``, with a `density` for the largest elements only.
    seed : int
        Names the random numbers.

    Returns
    -------
    callable
        Maps a floating-point tensor to a new one of its shape, dtype and device.
        Tensors of fewer than the codec's `exact_below` elements are only copied.

    Raises
    ------
    CodecError
        If the configuration is not one of a codec.
    ValueError
        If the codec is another one.
    """
    codec = get_codec(config)
    if not isinstance(codec, TopKCodec | QSGDCodec):
        raise ValueError(
            f"no codec {codec.id!r} on torch tensors; a gradient can be evaluated at "
            "what 'topk' or 'qsgd' decodes to"
        )
    generators: dict[torch.device, torch.Generator] = {}

    def compress(x: Tensor) -> Tensor:
        if x.numel() < max(codec.exact_below, 1):
            return x.clone()
        kept = top_k(x.float(), codec.density)
        if isinstance(codec, TopKCodec):
            narrow = torch.float16 if codec.values == "float16" else torch.float32
            return kept.to(narrow).to(x.dtype)
        if x.device not in generators:
            generators[x.device] = torch.Generator(x.device).manual_seed(seed)
        noise = torch.rand(x.shape, generator=generators[x.device], device=x.device)
        return _round(kept, codec, noise).to(x.dtype)

    return compress


def top_k(x: Tensor, density: float) -> Tensor:
    """Return `x` with all but its ``ceil(density * n)`` largest magnitudes at 0.

    Of equal magnitudes the first ones are kept, as `codec.select.top_k_mask` does.
    """
    k = count_kept(x.numel(), density)
    if k == x.numel():
        return x.clone()
    magnitudes = x.abs().flatten()
    threshold = _kth_largest(magnitudes, k)
    kept = magnitudes >= threshold
    surplus = int(kept.sum()) - k
    if surplus:
        kept[(magnitudes == threshold).nonzero().flatten()[-surplus:]] = False
    return x.masked_fill(~kept.view_as(x), 0)


def _kth_largest(x: Tensor, k: int) -> Tensor:
    if x.device.type == "cpu":  # numpy selects many times faster than torch there
        at = len(x) - k
        return torch.from_numpy(np.partition(x.numpy(), at)[at : at + 1])
    return x.topk(k, sorted=False).values.min()


def _round(x: Tensor, codec: QSGDCodec, noise: Tensor) -> Tensor:
    norms = _norms(x.flatten(), codec).view_as(x)
    scaled = torch.where(norms > 0, x.abs() / norms, 0).mul(codec.levels)
    low = scaled.floor()
    rounded = (low + (noise < scaled - low)).clamp(max=codec.levels)
    return rounded.copysign(x).div(codec.levels).mul(norms)


def _norms(x: Tensor, codec: QSGDCodec) -> Tensor:
    """Return for each element of a vector the norm of its bucket."""
    n = len(x)
    run = codec.bucket or n
    rows = torch.nn.functional.pad(x, (0, -n % run)).view(-1, run)
    if codec.norm == "linf":
        norms = rows.abs().amax(dim=1)
    else:
        norms = rows.double().norm(dim=1).float()
    return norms.repeat_interleave(run)[:n]
