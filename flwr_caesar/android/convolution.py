"""Convolutions of any rank, and their gradients, as slices and matrix products.

ExecuTorch's own kernel of the backward pass is a plain loop, several times slower;
these use the matrix product, which is its fastest kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Ints = Sequence[int]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Any:
    """Return what ``aten.convolution`` does; ``NotImplemented`` if it is transposed.

    Parameters
    ----------
    x : Tensor, shape (n, c, ...)
        Inputs.
    weight : Tensor, shape (o, c / groups, ...)
        Kernels.
    """
    if transposed:
        return NotImplemented
    kernel = weight.shape[2:]
    stride, padding, dilation = (
        _each(given, len(kernel)) for given in (stride, padding, dilation)
    )
    out = _correlate(_pad(x, padding, padding), weight, stride, dilation, groups)
    if bias is None:
        return out
    return out + bias.reshape(1, -1, *[1] * len(kernel))


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Ints | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """Return what ``aten.convolution_backward`` does, with the same exception."""
    if transposed:
        return NotImplemented
    rank = weight.dim() - 2
    stride, padding, dilation = (
        _each(given, rank) for given in (stride, padding, dilation)
    )
    wants_x, wants_weight, wants_bias = output_mask
    axes = [0, *range(2, gradient.dim())]
    return (
        _of_input(gradient, x, weight, stride, padding, dilation, groups)
        if wants_x
        else None,
        _of_weight(
            gradient, _pad(x, padding, padding), weight, stride, dilation, groups
        )
        if wants_weight
        else None,
        gradient.sum(axes) if wants_bias else None,
    )


def _correlate(
    x: Tensor, weight: Tensor, stride: Ints, dilation: Ints, groups: int
) -> Tensor:
    """Return the outputs ``(n, o, ...)`` of inputs that are padded already."""
    columns, sides = _columns(x, weight.shape[2:], stride, dilation, groups)
    out = _product(weight.reshape(groups, -1, columns.shape[1]), columns)
    return out.reshape(weight.shape[0], x.shape[0], *sides).transpose(0, 1)


def _columns(
    x: Tensor, kernel: Ints, stride: Ints, dilation: Ints, groups: int
) -> tuple[Tensor, list[int]]:
    """Return what each output is a sum of, and the outputs' sides.

    The columns are ``(groups, c / groups * positions, n * outputs)``, where the
    positions are those of a kernel.
    """
    windows = [x.transpose(0, 1)]
    sides = []
    for axis, (size, step, apart) in enumerate(
        zip(kernel, stride, dilation, strict=True), start=2
    ):
        span = apart * (size - 1)
        side = (x.shape[axis] - span - 1) // step + 1
        sides.append(side)
        windows = [
            _slice(window, axis, at * apart, side, step)
            for window, at in itertools.product(windows, range(size))
        ]
    stacked = torch.stack(windows, 1) if len(windows) > 1 else windows[0]
    depth = x.shape[1] // groups * len(windows)
    return stacked.reshape(groups, depth, x.shape[0] * math.prod(sides)), sides


def _slice(x: Tensor, axis: int, start: int, count: int, step: int) -> Tensor:
    end = start + (count - 1) * step + 1
    if start == 0 and step == 1 and end == x.shape[axis]:
        return x
    sliced: Tensor = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
    return sliced


def _product(a: Tensor, b: Tensor) -> Tensor:
    if len(a) == 1:
        return torch.mm(a[0], b[0])
    return torch.bmm(a, b)


def _of_input(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    """Return the gradient of the inputs: a convolution with the flipped kernels."""
    kernel = weight.shape[2:]
    lefts, rights = [], []
    for axis, step in enumerate(stride):
        size, side = x.shape[2 + axis], gradient.shape[2 + axis]
        span = dilation[axis] * (kernel[axis] - 1)
        left = span - padding[axis]
        lefts.append(left)
        rights.append(size + span - left - ((side - 1) * step + 1))
        gradient = _spread(gradient, 2 + axis, step)
    outputs, depth = weight.shape[:2]
    flipped = weight.flip([*range(2, weight.dim())])
    turned = flipped.reshape(groups, outputs // groups, depth, *kernel).transpose(1, 2)
    turned = turned.reshape(groups * depth, outputs // groups, *kernel)
    ones = [1] * len(kernel)
    return _correlate(_pad(gradient, lefts, rights), turned, ones, dilation, groups)


def _of_weight(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Ints,
    dilation: Ints,
    groups: int,
) -> Tensor:
    columns, _ = _columns(x, weight.shape[2:], stride, dilation, groups)
    rows = gradient.transpose(0, 1).reshape(groups, len(weight) // groups, -1)
    return _product(rows, columns.transpose(1, 2)).reshape(weight.shape)


def _spread(x: Tensor, axis: int, step: int) -> Tensor:
    """Return elements with ``step - 1`` zeros between them along an axis."""
    if step == 1:
        return x
    side = x.shape[axis]
    wide = torch.stack([x, *[torch.zeros_like(x)] * (step - 1)], axis + 1)
    joined = wide.reshape(*x.shape[:axis], side * step, *x.shape[axis + 1 :])
    return _slice(joined, axis, 0, (side - 1) * step + 1, 1)


def _pad(x: Tensor, lefts: Ints, rights: Ints) -> Tensor:
    """Return `x` with zeros around its sides, or cut where a number is negative."""
    for axis, (left, right) in enumerate(zip(lefts, rights, strict=True), start=2):
        start, end = max(-left, 0), x.shape[axis] - max(-right, 0)
        x = _slice(x, axis, start, end - start, 1)
    pairs = [
        [max(left, 0), max(right, 0)] for left, right in zip(lefts, rights, strict=True)
    ]
    flat = [number for pair in reversed(pairs) for number in pair]
    if not any(flat):
        return x
    padded: Tensor = torch.ops.aten.constant_pad_nd.default(x, flat, 0.0)
    return padded


def _each(given: Ints, rank: int) -> list[int]:
    """Return a number for each axis: torch may say one for all."""
    return [*given] * rank if len(given) == 1 else [*given]
