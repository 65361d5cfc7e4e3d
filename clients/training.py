"""Local training and evaluation of torch models: plain, exact, deterministic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.sgd import sgd

from .quantisation import check_weight_format, clip_weights, quantised_weights

Array = np.ndarray[Any, np.dtype[Any]]


def train(
    model: nn.Module,
    x: Array,
    y: Array,
    *,
    batch_size: int,
    lr: float,
    epochs: int | None = None,
    steps: int | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    weight_bits: int | None = None,
    weight_levels: str = "uniform",
    correct: Callable[[torch.optim.SGD, nn.Module], torch.optim.SGD] | None = None,
) -> dict[str, float]:
    """Train a classifier in place with SGD on the mean cross-entropy of each batch.

    Every epoch goes through the examples once in a new random order; its last batch
    may be smaller. Momentum starts at zero. A batch of a single example leaves batch
    normalisation at its running statistics, as it has none of its own.

    Parameters
    ----------
    model : torch.nn.Module
        Maps a batch of inputs to logits ``(n, classes)``. Left on `device`.
    x, y : ndarray
        Inputs ``(n, ...)`` and int64 labels ``(n,)``, or ``(n, length)`` for a model
        whose logits are ``(n, classes, length)``.
    batch_size : int
        Examples in one step.
    lr, momentum, weight_decay : float
        As in `torch.optim.SGD`.
    epochs, steps : int
        Passes over the examples, or batches; give exactly one.
    seed : int
        Names the order of the examples.
    device : str or torch.device
        Where to train.
    weight_bits : int, optional
        Quantisation-aware training: losses and gradients are those at weights of 1 to 8
        bits, the model keeps real weights, and the codec `prune` with the same `bits`
        sends them on the levels that were trained. 1 bit is BinaryConnect with the mean
        magnitude of a tensor as the scale of its signs.
    weight_levels : {"uniform", "power_of_two"}
        Spacing of the levels.
    correct : callable
        Returns the optimiser to train with, of the plain one and the model; such as
        `scaffnew.scaffnew` with its control variates. None: the plain one, with the
        same steps to the bit and without the seconds that a first optimiser takes.

    Returns
    -------
    dict of str to float
        ``loss``, the mean over the examples trained on, each before its own step, and
        ``examples``, the number of examples held: the weight of the update.

    Raises
    ------
    ValueError
        If there are no examples, not exactly one of `epochs` and `steps` is given,
        `lr`, `momentum` or `weight_decay` is below 0, or the weights' format is not
        known.
    """
    check_weight_format(weight_bits, weight_levels)
    options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    for name, value in options.items():
        if not value >= 0:  # as `torch.optim.SGD` does
            raise ValueError(f"{name} must be at least 0, not {value}")
    if len(y) == 0:
        raise ValueError("no examples to train on")
    if (epochs is None) == (steps is None):
        raise ValueError("give either epochs or steps")
    if steps is None:
        steps = (epochs or 0) * math.ceil(len(y) / batch_size)
    model.to(device).train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    step: Callable[[], object]
    if correct is None:
        step = _plain_sgd(model, lr=lr, momentum=momentum, weight_decay=weight_decay)
    else:
        plain = torch.optim.SGD(
            model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        )
        step = correct(plain, model).step
    total, seen = 0.0, 0
    order = _batches(len(y), batch_size, np.random.default_rng(seed))
    with _at_levels(model, weight_bits, weight_levels):
        parameters = list(model.parameters())
        for _, indices in zip(range(steps), order, strict=False):
            for module in norms:
                module.train(len(indices) > 1)
            inputs, labels = _to(device, x[indices], y[indices])
            for parameter in parameters:
                parameter.grad = None
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            step()
            if weight_bits == 1:
                clip_weights(model)
            total += loss.item() * len(indices)
            seen += len(indices)
    return {"loss": total / max(seen, 1), "examples": float(len(y))}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    x: Array,
    y: Array,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    weight_bits: int | None = None,
    weight_levels: str = "uniform",
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy in [0, 1] over all labels.

    The model is left in evaluation mode on `device`. `batch_size` changes only memory.
    `weight_bits` and `weight_levels` are as in `train`.

    Raises
    ------
    ValueError
        If there are no examples, or the weights' format is not known.
    """
    check_weight_format(weight_bits, weight_levels)
    if len(y) == 0:
        raise ValueError("no examples to evaluate")
    model.to(device).eval()
    loss, correct = 0.0, 0
    with _at_levels(model, weight_bits, weight_levels):
        for start in range(0, len(y), batch_size):
            part = slice(start, start + batch_size)
            inputs, labels = _to(device, x[part].copy(), y[part].copy())
            logits = model(inputs)
            loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(1) == labels).sum().item())
    return loss / y.size, correct / y.size


def state_arrays(model: nn.Module) -> dict[str, Array]:
    """Return copies of a model's parameters and buffers by `state_dict` name."""
    return {
        name: tensor.detach().cpu().numpy().copy()
        for name, tensor in model.state_dict().items()
    }


def load_state_arrays(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Set a model's parameters and buffers, keeping the model's own dtypes.

    Integer buffers, which averaging turns into fractions, are rounded to the nearest.

    Raises
    ------
    ValueError
        If names or shapes are not those of the model; it is then unchanged.
    """
    state = model.state_dict()
    for name in state.keys() | arrays.keys():
        if name not in state or name not in arrays:
            where = "model" if name in state else "arrays"
            raise ValueError(f"tensor {name!r} is in the {where} only")
        if tuple(state[name].shape) != arrays[name].shape:
            raise ValueError(
                f"tensor {name!r} has shape {arrays[name].shape}, "
                f"the model's has {tuple(state[name].shape)}"
            )
    with torch.no_grad():
        for name, tensor in state.items():
            array = arrays[name]
            exact = tensor.is_floating_point() or array.dtype.kind != "f"
            tensor.copy_(torch.from_numpy(np.array(array if exact else array.round())))


def _at_levels(
    model: nn.Module, bits: int | None, levels: str
) -> AbstractContextManager[object]:
    return nullcontext() if bits is None else quantised_weights(model, bits, levels)


def _plain_sgd(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float
) -> Callable[[], None]:
    """Return what takes the steps of `torch.optim.SGD`.

    The first optimiser of a process imports torch's compiler, which takes nearly as
    long as importing torch does; and Flower starts a process for each message.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    momenta: list[Tensor | None] = [None] * len(parameters)
    # What torch decides itself, from each parameter in each step.
    foreach = False if all(p.is_cpu for p in parameters) else None

    @torch.no_grad()
    def step() -> None:
        moved = [i for i, p in enumerate(parameters) if p.grad is not None]
        gradients = [g for p in parameters if (g := p.grad) is not None]
        kept = [momenta[i] for i in moved]
        sgd(
            [parameters[i] for i in moved],
            gradients,
            kept,
            has_sparse_grad=any(gradient.is_sparse for gradient in gradients),
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            foreach=foreach,
        )
        for i, momentum_of in zip(moved, kept, strict=True):
            momenta[i] = momentum_of

    return step


def _batches(
    n: int, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    while True:
        order = rng.permutation(n)
        for start in range(0, n, batch_size):
            yield order[start : start + batch_size]


def _to(device: str | torch.device, x: Array, y: Array) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
