"""What is put in the place of operators computes what torch does, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from flwr_caesar.android.rewriting import REWRITES

X2, X3 = (2, 3, 9, 8), (2, 3, 5, 6, 7)
CONV, POOL = 2, 1
CASES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]], int]] = {
    "conv": (F.conv2d, [X2, (4, 3, 3, 2), (4,)], CONV),
    "conv with all": (
        lambda x, w, b: F.conv2d(
            x, w, b, stride=(2, 3), padding=(1, 2), dilation=(2, 1)
        ),
        [X2, (4, 3, 3, 2), (4,)],
        CONV,
    ),
    "conv padded further than its kernel": (
        lambda x, w, b: F.conv2d(x, w, b, padding=3),
        [X2, (4, 3, 1, 2), (4,)],
        CONV,
    ),
    "conv of stride beyond its kernel": (
        lambda x, w, b: F.conv2d(x, w, b, stride=3),
        [X2, (4, 3, 2, 2), (4,)],
        CONV,
    ),
    "conv depthwise": (
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1, groups=3),
        [X2, (6, 1, 3, 3), (6,)],
        CONV,
    ),
    "conv in groups": (
        lambda x, w: F.conv2d(x, w, None, padding=1, groups=2),
        [(2, 4, 9, 8), (6, 2, 3, 3)],
        CONV,
    ),
    "conv1d": (
        lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1),
        [(2, 3, 9), (4, 3, 3), (4,)],
        CONV,
    ),
    "conv3d": (
        lambda x, w, b: F.conv3d(x, w, b, padding=1, stride=2),
        [X3, (4, 3, 3, 3, 3), (4,)],
        CONV,
    ),
    "conv transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2),
        [X2, (3, 4, 3, 3)],
        0,
    ),
    "max": (lambda x: F.max_pool2d(x, 2), [X2], POOL),
    "max with all": (
        lambda x: F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
        [X2],
        POOL,
    ),
    "max1d": (lambda x: F.max_pool1d(x, 2), [(2, 3, 8)], POOL),
    "max of one image": (lambda x: F.max_pool2d(x, 2), [(3, 8, 9)], POOL),
    "mean": (lambda x: F.avg_pool2d(x, 2), [X2], POOL),
    "mean without padding": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        [X2],
        POOL,
    ),
    "mean with padding": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        [X2],
        POOL,
    ),
    "mean by a divisor": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=7),
        [X2],
        POOL,
    ),
    "mean to a size": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), [X2], POOL),
}


class Rewritten(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.used: set[Any] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        rewrite = REWRITES.get(func)
        found = rewrite(*args, **(kwargs or {})) if rewrite else NotImplemented
        if found is NotImplemented:
            return func(*args, **(kwargs or {}))
        self.used.add(func)
        return found


def outputs_and_gradients(
    function: Callable[..., Tensor], shapes: list[tuple[int, ...]]
) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        # Of few values, so that the maximum of a window is in several places.
        drawn = torch.randn(shape, generator=source, dtype=torch.float64)
        return torch.round(2 * drawn)

    inputs = [draw(shape).requires_grad_() for shape in shapes]
    outputs = function(*inputs)
    gradients = torch.autograd.grad(outputs, inputs, draw(tuple(outputs.shape)))
    return [outputs.detach(), *gradients]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    function, shapes, count = CASES[name]
    expected = outputs_and_gradients(function, shapes)
    with Rewritten() as mode:
        found = outputs_and_gradients(function, shapes)
    assert len(mode.used) == count
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
