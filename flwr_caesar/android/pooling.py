"""Gradients of pooling in two dimensions, by operators that ExecuTorch has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Ints = Sequence[int]


def max_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Return what ``aten.max_pool2d_with_indices_backward`` does.

    ExecuTorch 1.5.1 has a kernel of that name whose gradients are wrong.

    Parameters
    ----------
    gradient : Tensor, shape (n, c, h', w')
        Of the outputs.
    indices : Tensor, shape (n, c, h', w')
        Where in its image ``(h, w)`` each output comes from.
    """
    planes = x.numel() // (x.shape[-1] * x.shape[-2])
    zeros = torch.zeros_like(x).reshape(planes, -1)
    added = zeros.scatter_add(
        1, indices.reshape(planes, -1), gradient.reshape(planes, -1)
    )
    return added.reshape(x.shape)


def avg_pool2d_backward(
    gradient: Tensor,
    x: Tensor,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Return what ``aten.avg_pool2d_backward`` does.

    Each output is a mean along one axis of means along the other, so its gradient goes
    back through a constant matrix on either side.
    """
    matrices = []
    for axis, (size, step, pad) in enumerate(
        zip(
            _pair(kernel_size),
            _pair(stride or kernel_size),
            _pair(padding),
            strict=True,
        ),
        start=-2,
    ):
        rows = []
        side = x.shape[axis]
        for i in range(gradient.shape[axis]):
            start = i * step - pad
            end = min(start + size, side + pad)
            inside = range(max(start, 0), min(end, side))
            count = end - start if count_include_pad else len(inside)
            share = 1.0 if divisor_override else 1.0 / count
            rows.append([share if at in inside else 0.0 for at in range(side)])
        matrices.append(rows)
    back = _through(gradient, *matrices)
    return back / divisor_override if divisor_override else back


def adaptive_avg_pool2d_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Return what ``aten._adaptive_avg_pool2d_backward`` does, in the same way."""
    matrices = []
    for axis in (-2, -1):
        side, count = x.shape[axis], gradient.shape[axis]
        rows = []
        for i in range(count):
            inside = range(i * side // count, -(-(i + 1) * side // count))
            rows.append(
                [1.0 / len(inside) if at in inside else 0.0 for at in range(side)]
            )
        matrices.append(rows)
    return _through(gradient, *matrices)


def _through(gradient: Tensor, rows: Any, columns: Any) -> Tensor:
    """Return ``rowsᵀ · gradient · columns`` for each image ``(h', w')``."""
    high, wide = (
        torch.tensor(matrix, dtype=gradient.dtype) for matrix in (rows, columns)
    )
    *planes, height, width = gradient.shape
    out = gradient.reshape(-1, width).mm(wide).reshape(-1, height, wide.shape[1])
    out = out.transpose(1, 2).reshape(-1, height).mm(high)
    out = out.reshape(-1, wide.shape[1], high.shape[1]).transpose(1, 2)
    return out.reshape(*planes, high.shape[1], wide.shape[1])


def _pair(given: Ints) -> list[int]:
    return [*given] * 2 if len(given) == 1 else [*given]
