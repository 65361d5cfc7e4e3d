"""From a torch module to a checked program, in one call."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from . import randomness
from .errors import ExportError
from .functional import Functional
from .losses import LOSSES
from .lowering import Lowered, Program, lower
from .manifest import Named, manifest
from .parity import TOLERANCE, Batches, check
from .rewriting import REWRITES, Rewrites


@dataclass(frozen=True)
class Export:
    """A program that computes what torch does, and its manifest."""

    lowered: Lowered
    manifest: dict[str, Any]


def export(
    model: nn.Module,
    example_shape: tuple[int, ...],
    *,
    name: str = "",
    batch: int = 32,
    classes: int | None = None,
    loss: str = "cross_entropy",
    integers: int | None = None,
    without_dropout: bool = False,
    tolerance: float = TOLERANCE,
    rewrites: Rewrites = REWRITES,
) -> Export:
    """Return the training program of a model, compared with torch.

    Parameters
    ----------
    model : torch.nn.Module
        In float32; is not changed.
    example_shape : tuple of int
        Of one input, without the batch.
    name : str
        What the manifest calls the model.
    batch : int
        Examples of a batch. An engine fills up smaller ones, takes larger ones apart.
    classes : int, optional
        Labels are below it; checked against the model's outputs.
    loss : {"cross_entropy", "binary_cross_entropy"}
        Of logits.
    integers : int, optional
        Inputs are whole numbers below it, such as tokens, instead of real numbers.
    without_dropout : bool
        Whether to switch dropout off instead of refusing the model.
    tolerance : float
        How far from torch the program may be; see `parity.Parity`.
    rewrites : mapping
        Which operators are written anew.

    Raises
    ------
    ParityError
        If the program differs from torch.
    ExportError
        If there can be no program of this model.
    """
    if batch < 1 or min(example_shape, default=1) < 1:
        raise ExportError("batch and example shape have to be above 0")
    if integers is not None and integers < 1:
        raise ExportError("inputs below 1 have no value; say how many there are")
    model = copy.deepcopy(model)
    if without_dropout:
        randomness.switch_off(model)
    randomness.forbid(model)
    batches = Batches(example_shape, batch, 1, integers)
    functional = Functional(model, LOSSES[loss], batches.draw(0)[0])
    full = bool(functional.updated)
    count = _classes(functional, loss, classes)
    batches = replace(batches, classes=count, full=full)
    lowered = lower(functional, batches.draw(0), rewrites=rewrites)
    program = Program(lowered.data)
    parity = check(program, functional, batches, tolerance=tolerance)
    named = Named(name or type(model).__name__, loss)
    return Export(lowered, manifest(named, functional, batches, lowered, parity))


def _classes(functional: Functional, loss: str, classes: int | None) -> int:
    """Return how many classes the outputs are for."""
    functional.model.eval()
    with torch.no_grad():
        outputs = functional.model(functional.x)
    kind = LOSSES[loss]
    if not isinstance(outputs, torch.Tensor):
        raise ExportError(
            f"the model returns a {type(outputs).__name__}; {loss} needs {kind.outputs}"
        )
    found = kind.classes(tuple(outputs.shape[1:]))
    if not found or outputs.shape[:1] != functional.x.shape[:1]:
        raise ExportError(
            f"the model's outputs are {tuple(outputs.shape)}; {loss} needs "
            f"{kind.outputs}"
        )
    if classes is not None and classes != found:
        raise ExportError(f"the model's outputs are for {found} classes, not {classes}")
    return found
