"""Evaluating a model at other weights than its own, which still get the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, change: Change) -> Tensor:
        return change(weight.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None]:
        return grads[0], None


class EvaluatedAt:
    """While it is in force, a model computes with ``change(w)`` in place of ``w``.

    The parameters are exchanged for the duration of each call of the model, in training
    and in evaluation. The gradient at ``change(w)`` becomes that of ``w`` (the
    straight-through estimator), so an optimizer's step is one from ``w``. Between calls
    the model holds its own weights: `state_dict` has its usual names, unlike under
    `torch.nn.utils.parametrize`, and whatever goes wrong in a call, no weight is lost.

    It is in force until `remove`, or the end of a ``with`` block.

    Parameters
    ----------
    model : torch.nn.Module
        The module that is called, not only its parts.
    change : callable
        Maps a weight, without gradients, to a new tensor of its shape and dtype.
    parameters : iterable of torch.nn.Parameter
        Which parameters of the model are changed.

    References
    ----------
    Bengio, Léonard and Courville (2013), arXiv:1308.3432.
    """

    def __init__(
        self, model: nn.Module, change: Change, parameters: Iterable[nn.Parameter]
    ) -> None:
        self.calls = 0
        self._model = model
        self._change = change
        self._chosen = {id(parameter) for parameter in parameters}
        self._own: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._handles = (
            model.register_forward_pre_hook(self._exchange, prepend=True),
            model.register_forward_hook(self._restore, always_call=True),
        )

    def remove(self) -> None:
        """Let the model compute with its own weights again."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> EvaluatedAt:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def _exchange(self, *_: Any) -> None:
        self.calls += 1
        changed: dict[int, Tensor] = {}  # one tensor for tied weights
        for module in self._model.modules():
            weights: dict[str, Any] = module._parameters
            for name, own in weights.items():
                if id(own) not in self._chosen:
                    continue
                if id(own) not in changed:
                    applied = _StraightThrough.apply(own, self._change)  # type: ignore[no-untyped-call]
                    changed[id(own)] = applied
                self._own.append((module, name, own))
                weights[name] = changed[id(own)]

    def _restore(self, *_: Any) -> None:
        for module, name, own in self._own:
            module._parameters[name] = own
        self._own.clear()
