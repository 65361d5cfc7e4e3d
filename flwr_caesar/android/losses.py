"""Losses of classifications, and which predictions are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Loss:
    """The loss of each example, and whether its prediction is right.

    Attributes
    ----------
    each : callable
        Of outputs ``(n, ...)`` and labels ``(n,)``, int64: losses ``(n,)``.
    correct : callable
        Of the same: 1 or 0 for each example, float32 ``(n,)``.
    classes : callable
        Of the shape of one example's outputs: how many classes these stand for; 0 if
        they cannot be the outputs of such a loss.
    outputs : str
        What the outputs have to be, for messages.
    """

    each: Callable[[Tensor, Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor]
    classes: Callable[[tuple[int, ...]], int]
    outputs: str


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none")


def _largest(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(1) == labels).to(torch.float32)


def _binary(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        outputs.reshape(-1), labels.to(outputs.dtype), reduction="none"
    )


def _sign(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs.reshape(-1) > 0) == (labels > 0)).to(torch.float32)


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": Loss(
        _cross_entropy,
        _largest,
        lambda shape: shape[0] if len(shape) == 1 and shape[0] > 1 else 0,
        "one number for each class: (batch, classes)",
    ),
    "binary_cross_entropy": Loss(
        _binary,
        _sign,
        lambda shape: 2 if shape in ((), (1,)) else 0,
        "one number for each example: (batch,) or (batch, 1)",
    ),
}
"""By the name that the command takes; both begin from logits, not probabilities."""
