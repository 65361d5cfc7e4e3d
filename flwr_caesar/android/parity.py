"""Whether a program computes what torch does: gradients, statistics and evaluations."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .errors import ParityError
from .functional import Functional
from .lowering import Program

STEPS = 20
TOLERANCE = 1e-5
_RATE = 0.1
_LEAST = 1e-3
_TRIES, _ROUNDING = 12, 2.0**-23


@dataclass(frozen=True)
class Batches:
    """Made-up batches to compare on.

    Attributes
    ----------
    shape : tuple of int
        Of one example.
    size : int
        Examples in a batch.
    classes : int
        Labels are below it.
    integers : int or None
        Inputs are whole numbers below it; `None`: they are real numbers.
    full : bool
        Whether every place of a batch has an example: batch normalisation would take
        fillings for examples.
    """

    shape: tuple[int, ...]
    size: int
    classes: int
    integers: int | None = None
    full: bool = False

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, labels and weights of a step's batch.

        Odd steps have few different values and much background, as images have, so that
        maxima are shared by several places; every third batch is filled up with zeros.
        """
        source = torch.Generator().manual_seed(step)
        form = (self.size, *self.shape)
        if self.integers is not None:
            x = torch.randint(0, self.integers, form, generator=source)
        else:
            x = torch.randn(form, generator=source)
            x = torch.relu(torch.round(x)) if step % 2 else x
        y = torch.randint(0, self.classes, (self.size,), generator=source)
        count = self.size
        if step % 3 == 2 and not self.full:
            count = max(1, self.size // 2)
        weights = torch.full((self.size,), 1 / count)
        x[count:], y[count:], weights[count:] = 0, 0, 0
        return x, y, weights


@dataclass
class Parity:
    """How far a program was from torch at most.

    Attributes
    ----------
    gradients : float
        Largest difference of a gradient, as a share of the largest element of all. Not
        of its own tensor: a bias before a batch normalisation has a gradient of 0, of
        which torch and ExecuTorch each have the rounding.
    absolute : float
        The same difference as it is.
    kinks : int
        Steps left out of these, because torch's own gradients jump there by as much
        when its weights are rounded in another way.
    loss, updated, evaluation : float
        Relative differences of losses, new statistics, and losses of evaluations.
    """

    steps: int
    tolerance: float
    gradients: float = 0.0
    absolute: float = 0.0
    loss: float = 0.0
    updated: float = 0.0
    evaluation: float = 0.0
    kinks: int = 0
    worst: str = field(default="", repr=False)

    def figures(self) -> dict[str, float]:
        """Return what has to be within the tolerance."""
        names = ("loss", "gradients", "updated", "evaluation")
        return {name: getattr(self, name) for name in names}


def check(
    program: Program,
    functional: Functional,
    batches: Batches,
    *,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Train with a program and compare each of its answers with torch's.

    The model is the one that torch runs by itself: its own operators, its own autograd.
    At each step both have the program's weights.

    Raises
    ------
    ParityError
        If any answer is further from torch's than the tolerance.
    """
    parity = Parity(steps, tolerance)
    model = copy.deepcopy(functional.model)
    tensors = functional.initial()
    for step in range(steps):
        x, y, weights = batches.draw(step)
        load(model, functional, tensors)
        _compare_evaluation(
            parity, program, functional, model, tensors, (x, y, weights)
        )
        loss, *rest = program.run("train", [*tensors, x, y, weights])
        count = len(functional.trained)
        gradients = dict(zip(functional.trained, rest[:count], strict=True))
        updated = dict(zip(functional.updated, rest[count:], strict=True))
        expected = _reference(model, functional, x, y, weights)
        parity.loss = _larger(parity.loss, _relative(loss, expected))
        after = model.state_dict()
        for entry, tensor in zip(functional.entries, tensors, strict=True):
            if entry.role != "trained":
                value = updated.get(entry.name, tensor)
                distance = _relative(value, after[entry.name])
                parity.updated = _larger(parity.updated, distance)
        off = _differences(gradients, model)
        if any(v > tolerance for v, _ in off.values()) and _rounding_explains(
            off, model, functional, tensors, (x, y, weights)
        ):
            parity.kinks += 1
        else:
            _note(parity, off)
        wrong = {k: v for k, v in parity.figures().items() if not v <= tolerance}
        if wrong:
            raise ParityError(_refusal(wrong, parity, step))
        tensors = _stepped(functional, tensors, gradients, updated)
    return parity


def load(model: nn.Module, functional: Functional, tensors: list[Tensor]) -> None:
    """Put tensors, in the order of a program, into a model."""
    names = (entry.name for entry in functional.entries)
    model.load_state_dict(dict(zip(names, tensors, strict=True)))


def _reference(
    model: nn.Module, functional: Functional, x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    model.train()
    model.zero_grad(set_to_none=True)
    loss = (functional.loss.each(model(x), y) * weights).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _differences(
    gradients: dict[str, Tensor], model: nn.Module
) -> dict[str, tuple[float, float]]:
    """Return how far each gradient is from the model's, relatively and as it is."""
    expected = _gradients(model, list(gradients))
    largest = max(_size(tensor) for tensor in expected.values())
    return {
        name: (off / max(largest, _LEAST), off)
        for name, gradient in gradients.items()
        for off in [_size(gradient - expected[name])]
    }


def _rounding_explains(
    off: dict[str, tuple[float, float]],
    model: nn.Module,
    functional: Functional,
    tensors: list[Tensor],
    batch: tuple[Tensor, Tensor, Tensor],
) -> bool:
    """Whether torch's own gradients differ as much at weights of another rounding.

    Where two places of a window, or a ReLU and 0, are equal but for rounding, the
    gradient jumps, and torch itself may return either.
    """
    here = _gradients(model, list(off))
    source = torch.Generator().manual_seed(0)
    jumps = dict.fromkeys(off, 0.0)
    for _ in range(_TRIES):
        near = [
            tensor * (1 + _ROUNDING * torch.randn(tensor.shape, generator=source))
            if entry.role == "trained"
            else tensor
            for entry, tensor in zip(functional.entries, tensors, strict=True)
        ]
        load(model, functional, near)
        _reference(model, functional, *batch)
        for name, gradient in _gradients(model, list(off)).items():
            jumps[name] = max(jumps[name], _size(gradient - here[name]))
    return all(absolute <= 2 * jumps[name] for name, (_, absolute) in off.items())


def _note(parity: Parity, off: dict[str, tuple[float, float]]) -> None:
    for name, (share, absolute) in off.items():
        parity.absolute = _larger(parity.absolute, absolute)
        if not share <= parity.gradients:
            parity.gradients, parity.worst = share, name


def _gradients(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    for name in names:
        gradient = parameters[name].grad
        found[name] = (
            torch.zeros_like(parameters[name]) if gradient is None else gradient.clone()
        )
    return found


def _compare_evaluation(
    parity: Parity,
    program: Program,
    functional: Functional,
    model: nn.Module,
    tensors: list[Tensor],
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    x, y, weights = batch
    loss, correct = program.run("evaluate", [*tensors, x, y, weights])
    model.eval()
    with torch.no_grad():
        outputs = model(x)
        expected = (functional.loss.each(outputs, y) * weights).sum()
        right = (functional.loss.correct(outputs, y) * weights).sum()
    off = max(_relative(loss, expected), float((correct - right).abs()))
    parity.evaluation = _larger(parity.evaluation, off)


def _stepped(
    functional: Functional,
    tensors: list[Tensor],
    gradients: dict[str, Tensor],
    updated: dict[str, Tensor],
) -> list[Tensor]:
    """Return the tensors after a step, short enough that no model explodes."""
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients.values()))
    rate = _RATE / max(1.0, norm)
    return [
        tensor - rate * gradients[entry.name]
        if entry.role == "trained"
        else updated.get(entry.name, tensor)
        for entry, tensor in zip(functional.entries, tensors, strict=True)
    ]


def _size(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def _relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.double(), expected.double()
    return _size(found - expected) / max(_size(expected), _LEAST)


def _larger(a: float, b: float) -> float:
    """Return the larger; what is no number is larger than all."""
    return a if a >= b else b


def _refusal(wrong: dict[str, float], parity: Parity, step: int) -> str:
    told = ", ".join(f"{name} by {value:.3g}" for name, value in wrong.items())
    where = (
        f" (worst: the gradient of '{parity.worst}')" if "gradients" in wrong else ""
    )
    return (
        f"the program differs from torch at step {step + 1}: {told}{where}, of which "
        f"{parity.tolerance:g} is allowed. Nothing was written: ExecuTorch computes an "
        "operator of this model in another way"
    )
