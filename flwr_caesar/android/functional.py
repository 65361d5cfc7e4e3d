"""A torch module as two functions of its tensors: a step's gradients, an evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from .errors import ExportError
from .losses import Loss

Role = Literal["trained", "updated", "constant"]
DTYPES = {torch.float32: "float32", torch.int64: "int64"}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of the model's ``state_dict``.

    Attributes
    ----------
    role : {"trained", "updated", "constant"}
        Whether a step returns its gradient, its new value (statistics of batch
        normalisation), or nothing.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: Role


class Functional:
    """What a phone runs: functions of all tensors and of one batch, without a state.

    Both take the tensors in the order of `entries`, then ``x``, labels ``y`` and a
    weight for each example, which are summed over: weights of 1/n make a mean over n
    examples, and 0 fills up a batch.

    Parameters
    ----------
    model : torch.nn.Module
        Is copied.
    loss : Loss
        Of its outputs.
    x : Tensor, shape (batch, ...)
        Inputs of the kind that it takes.

    Raises
    ------
    ExportError
        If the model has tensors that a phone cannot hold, or cannot run.
    """

    def __init__(self, model: nn.Module, loss: Loss, x: Tensor) -> None:
        self.model = copy.deepcopy(model)
        self.loss = loss
        self.x = x
        state = _checked_state(self.model)
        updated = self._updated(state)
        trained = {n for n, p in self.model.named_parameters() if p.requires_grad}
        if not trained:
            raise ExportError(
                "the model has no parameter with requires_grad: nothing to train"
            )
        self.entries = tuple(
            TensorEntry(
                name,
                tuple(tensor.shape),
                DTYPES[tensor.dtype],
                "trained"
                if name in trained
                else "updated"
                if name in updated
                else "constant",
            )
            for name, tensor in state.items()
        )
        self.trained = self._named("trained")
        self.updated = self._named("updated")

    def initial(self) -> list[Tensor]:
        """Return copies of the model's tensors, in order."""
        return [t.detach().clone() for t in self.model.state_dict().values()]

    def train(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the loss, the gradients, and the new values of what is updated."""
        self.model.train()
        tensors, x, y, weights = self._split(inputs)
        trained = {name: tensors.pop(name) for name in self.trained}

        def loss(
            trained: dict[str, Tensor], rest: dict[str, Tensor]
        ) -> tuple[Tensor, list[Tensor]]:
            own = {name: tensor.clone() for name, tensor in rest.items()}
            outputs = functional_call(self.model, {**trained, **own}, (x,))
            value = (self.loss.each(outputs, y) * weights).sum()
            return value, [own[name] for name in self.updated]

        differentiated = grad_and_value(loss, has_aux=True)
        gradients, (value, updated) = differentiated(trained, tensors)
        return value, *(gradients[name] for name in self.trained), *updated

    def evaluate(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the loss, and the weights' sum over what was predicted rightly."""
        self.model.eval()
        tensors, x, y, weights = self._split(inputs)
        outputs = functional_call(self.model, tensors, (x,))
        return (
            (self.loss.each(outputs, y) * weights).sum(),
            (self.loss.correct(outputs, y) * weights).sum(),
        )

    def _split(
        self, inputs: tuple[Tensor, ...]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        *values, x, y, weights = inputs
        names = (entry.name for entry in self.entries)
        return dict(zip(names, values, strict=True)), x, y, weights

    def _named(self, role: Role) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.entries if entry.role == role)

    def _updated(self, state: dict[str, Tensor]) -> set[str]:
        """Return which buffers a step of training changes, by taking one."""
        tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.model.train()
        try:
            with torch.no_grad():
                functional_call(self.model, tensors, (self.x,))
        except Exception as error:
            raise ExportError(
                f"the model does not run on inputs {tuple(self.x.shape)} of "
                f"{self.x.dtype}: {first_line(error)}"
            ) from error
        return {n for n, tensor in tensors.items() if not tensor.equal(state[n])}


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _checked_state(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ExportError(f"'{name}' of the state_dict is no tensor")
        if tensor.dtype not in DTYPES:
            raise ExportError(
                f"'{name}' is {tensor.dtype}; a program holds float32 and int64. "
                "Use model.float(), or register_buffer(..., persistent=False) for "
                "what never changes"
            )
        if not tensor.is_contiguous():
            raise ExportError(f"'{name}' is not contiguous; use .contiguous()")
    for first, second in _shared(state):
        raise ExportError(
            f"'{first}' and '{second}' are one tensor, and a phone would train "
            "them as two. Give each its own"
        )
    return state


def _shared(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    seen: dict[int, str] = {}
    for name, tensor in state.items():
        if tensor.numel() and tensor.data_ptr() in seen:
            yield seen[tensor.data_ptr()], name
        seen[tensor.data_ptr()] = name
