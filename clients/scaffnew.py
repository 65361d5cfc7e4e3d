"""Local steps of Scaffnew and FedComLoc: an optimiser whose gradients are corrected."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .straight_through import EvaluatedAt

Array = np.ndarray[Any, np.dtype[Any]]
AnySGD = TypeVar("AnySGD", bound=torch.optim.SGD)


def scaffnew(
    optimizer: AnySGD,
    model: nn.Module,
    control: Mapping[str, Array | Tensor],
    *,
    compress: Callable[[Tensor], Tensor] | None = None,
) -> AnySGD:
    """Make an optimiser's step ``x - lr (g - h)``, with the device's control variates.

    The one line that Scaffnew changes in a training loop::

        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        optimizer = scaffnew(optimizer, model, control)

    With `compress`, `g` is the gradient at ``C(x)`` and the step still one from `x`:
    FedComLoc-Local. As long as the optimiser lives, the model then computes with
    ``C(x)`` whenever it is called; what it holds is `x`.

    Parameters
    ----------
    optimizer : torch.optim.SGD
        Over the model's parameters, without momentum, and with one `lr` for all of them
        and all steps: the control variates are corrected by what a step does, and no
        other step is known. Weight decay is part of the objective, taken at `x`.
    model : torch.nn.Module
        The module that the training loop calls, on its device.
    control : mapping of str to ndarray or torch.Tensor
        ``h`` by name in the model's `state_dict`; what is absent is 0. Entries for
        buffers, which no optimiser steps, are passed over.
    compress : callable, optional
        ``C``: maps a tensor to a new one of its shape, such as
        `compressors.compressor`. Applied to every floating-point parameter.

    Returns
    -------
    torch.optim.SGD
        The optimiser given, whose `step` is now corrected. Gradients are read and left
        as the loss made them.

    Raises
    ------
    ValueError
        If a control variate has no tensor of its name and shape in the model, or the
        optimiser is not plain SGD; the latter also from `step`, if it has changed.
    RuntimeError
        From `step`, if it is given a closure, or the loss was computed past the model
        and so not at ``C(x)``.

    References
    ----------
    Mishchenko et al. (2022), ProxSkip, arXiv:2202.09357. Yi et al. (2024), FedComLoc,
    arXiv:2403.09904.
    """
    lr = _plain_lr(optimizer)
    correction = _Correction(_on_parameters(model, control), lr)
    if compress is not None:
        floating = [p for p in model.parameters() if p.is_floating_point()]
        correction.evaluated = EvaluatedAt(model, compress, floating)
        weakref.finalize(optimizer, correction.evaluated.remove)
    optimizer.register_step_pre_hook(correction.apply)
    optimizer.register_step_post_hook(correction.undo)
    return optimizer


class _Correction:
    """What happens to the gradients before and after each step."""

    def __init__(self, shifts: list[tuple[nn.Parameter, Tensor]], lr: float) -> None:
        self.evaluated: EvaluatedAt | None = None
        self._shifts = shifts
        self._lr = lr
        self._gradients: list[Tensor | None] = []

    def apply(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if len(args) > 1 or kwargs.get("closure") is not None:
            raise RuntimeError(
                "scaffnew corrects the gradient before the step: call loss.backward(), "
                "then optimizer.step() without a closure"
            )
        if _plain_lr(optimizer) != self._lr:
            raise ValueError(
                f"lr changed from {self._lr} within a round; Scaffnew's control "
                "variates need one: schedule it from round to round"
            )
        if self.evaluated is not None:
            if not self.evaluated.calls:
                raise RuntimeError(
                    "the model given to scaffnew was not called since the last step, "
                    "so the gradient is not the one at C(x): compute the loss from "
                    "model(inputs)"
                )
            self.evaluated.calls = 0
        self._gradients = [parameter.grad for parameter, _ in self._shifts]
        for (parameter, shift), gradient in zip(
            self._shifts, self._gradients, strict=True
        ):
            parameter.grad = -shift if gradient is None else gradient - shift

    def undo(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        for (parameter, _), gradient in zip(self._shifts, self._gradients, strict=True):
            parameter.grad = gradient
        self._gradients = []


def _plain_lr(optimizer: torch.optim.Optimizer) -> float:
    if not isinstance(optimizer, torch.optim.SGD):
        raise ValueError(
            f"scaffnew needs torch.optim.SGD, not {type(optimizer).__name__}: its "
            "control variates assume steps of lr times the gradient"
        )
    rates = set()
    for group in optimizer.param_groups:
        for option in ("momentum", "maximize"):
            if group[option]:
                raise ValueError(
                    f"scaffnew needs plain SGD, not {option}={group[option]!r}: set it "
                    f"to {type(group[option])(0)!r}; Scaffnew has its own acceleration"
                )
        rates.add(float(group["lr"]))
    if len(rates) != 1:
        raise ValueError(
            f"scaffnew needs one lr for all parameters, not {sorted(rates)}"
        )
    return rates.pop()


def _on_parameters(
    model: nn.Module, control: Mapping[str, Array | Tensor]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Return the parameters that have a control variate, with it."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers())
    shifts: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for name, value in control.items():
        target = parameters.get(name, buffers.get(name))
        if target is None or target.shape != value.shape:
            raise ValueError(
                f"control variate {name!r} of shape {tuple(value.shape)} is for no "
                "tensor of the model: control variates belong to the model they were "
                "computed with"
            )
        if isinstance(target, nn.Parameter) and target.requires_grad:
            h = value if isinstance(value, Tensor) else torch.from_numpy(value.copy())
            shifts.setdefault(id(target), (target, h.to(target, copy=True)))
    return list(shifts.values())
