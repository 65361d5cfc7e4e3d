"""Which operators of a training program are written anew, and as what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from .convolution import convolution, convolution_backward
from .pooling import (
    adaptive_avg_pool2d_backward,
    avg_pool2d_backward,
    max_pool2d_backward,
)

aten = torch.ops.aten
Rewrites = Mapping[Any, Callable[..., Any]]

REWRITES: Rewrites = {
    aten.convolution.default: convolution,
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
}
"""Where ExecuTorch's kernels are missing, wrong or slow."""


def table(rewrites: Rewrites = REWRITES) -> dict[Any, Callable[..., Any]]:
    """Return what tracing puts in the place of operators.

    Parameters
    ----------
    rewrites : mapping
        Ours; without them the program is what ExecuTorch makes of torch's own.
    """
    plain = dict(core_aten_decompositions())
    # Torch takes these for basic; ExecuTorch has none of them.
    plain.update(
        get_decompositions(
            [
                aten.native_batch_norm,
                aten._native_batch_norm_legit,
                aten._native_batch_norm_legit_functional,
                aten.native_batch_norm_backward,
                aten.native_group_norm,
                aten.native_group_norm_backward,
                aten.native_layer_norm_backward,
            ]
        )
    )
    plain[aten.empty_permuted.default] = _zeros
    plain[aten.empty.memory_format] = _zeros
    return {**plain, **rewrites}


def _zeros(size: Any, *_: Any, dtype: Any = None, **__: Any) -> Tensor:
    return torch.full(size, 0, dtype=dtype or torch.get_default_dtype())
