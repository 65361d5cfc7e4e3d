"""Quantisation-aware training: a model evaluated at weights of a few bits.

The levels are those of the codec `prune` with `bits`, so that a message carries the
very weights that training evaluated. That is why this is not a library's: torch's fake
quantisation rounds to multiples of a step, of which the last is not the largest weight
to the bit, so that weights on levels would move when quantised again, and it knows
neither one bit nor powers of two. Brevitas, which the paper used, has layers of its own
in place of torch's, and pins packages (an exact `dependencies`, `setuptools` below 81)
that others need in other versions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flwr_caesar.codec.quantisers.uniform import top_level
from flwr_caesar.codec.quantisers.weights import WEIGHT_BITS, WEIGHT_LEVELS

from .straight_through import EvaluatedAt

_LARGEST_EXPONENT = 127


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are quantised: those of at least two axes.

    That is the kernels of convolutions, linear, recurrent and embedding layers, and not
    biases and the scales of normalisation; the same tensors that `prune` quantises.
    """
    return [p for p in model.parameters() if p.ndim >= 2 and p.is_floating_point()]


def check_weight_format(bits: int | None, levels: str) -> None:
    """Check a number of bits and a spacing of levels.

    Raises
    ------
    ValueError
        If `bits` is not `None` or from 1 to 8, or `levels` is unknown.
    """
    if bits is not None and bits not in WEIGHT_BITS:
        raise ValueError(f"weight_bits must be None or from 1 to 8, not {bits!r}")
    if levels not in WEIGHT_LEVELS:
        raise ValueError(
            f"weight_levels must be one of {', '.join(WEIGHT_LEVELS)}, not {levels!r}"
        )


def quantised(weight: Tensor, bits: int, levels: str = "uniform") -> Tensor:
    """Return a weight tensor on its levels; `codec.weights` in torch.

    Parameters
    ----------
    weight : torch.Tensor
        Floating point, on any device.
    bits : int
        1 to 8. 1 is the sign times the mean magnitude, both without zeros.
    levels : {"uniform", "power_of_two"}
        Spacing of the levels from 2 bits on: equally spaced and symmetric up to the
        largest magnitude, or zero and the powers of two just below it.
    """
    if weight.numel() == 0:
        return weight.clone()
    x = weight.float()
    if bits == 1:
        present = torch.count_nonzero(x).clamp(min=1)
        found = x.sign() * (x.abs().sum(dtype=torch.float64) / present).float()
    elif levels == "power_of_two":
        found = _power_of_two(x, top_level(bits))
    else:
        top = top_level(bits)
        peak = x.abs().max()
        found = torch.where(peak > 0, x / peak, x).mul(top).round().div(top).mul(peak)
    return found.to(weight.dtype)


def _power_of_two(x: Tensor, top: int) -> Tensor:
    magnitude = x.abs()
    peak = _nearest_exponent(magnitude.max()).clamp(max=_LARGEST_EXPONENT)
    level = (_nearest_exponent(magnitude) - peak + top).clamp(0, top)
    half_smallest = torch.ldexp(torch.ones_like(peak, dtype=x.dtype), peak - top)
    level = torch.where((level == 0) & (magnitude >= half_smallest), 1, level)
    value = torch.ldexp(torch.ones_like(x), peak + level - top)
    return torch.where((level == 0) | (x == 0), 0, value.copysign(x))


def _nearest_exponent(magnitude: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(magnitude)
    return exponent - (mantissa < 0.75).int()


def quantised_weights(
    model: nn.Module, bits: int, levels: str = "uniform"
) -> EvaluatedAt:
    """Evaluate a model at quantised weights, and train its real ones through them.

    Parameters
    ----------
    model : torch.nn.Module
        The model; it keeps its real weights.
    bits, levels : int, str
        As in `quantised`.

    Returns
    -------
    EvaluatedAt
        Undo it with `remove`, or use it in a ``with`` statement.

    Raises
    ------
    ValueError
        If `bits` or `levels` is not known.
    """
    check_weight_format(bits, levels)
    return EvaluatedAt(model, lambda w: quantised(w, bits, levels), weights_of(model))


@torch.no_grad()
def clip_weights(model: nn.Module) -> None:
    """Clip the weights that are quantised to [-1, 1], in place.

    At 1 bit, a step that takes a weight further from zero than 1 would change nothing
    but how long it takes to come back.

    References
    ----------
    Courbariaux, Bengio and David (2015), BinaryConnect, arXiv:1511.00363.
    """
    for weight in weights_of(model):
        weight.clamp_(-1, 1)
