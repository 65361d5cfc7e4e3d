"""Dropout and its like: draws that no parity check could compare."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from .errors import ExportError


def forbid(model: nn.Module) -> None:
    """Raise `ExportError` if a layer drops anything at random."""
    for name, module, attribute in _droppers(model):
        chance = getattr(module, attribute)
        kind = type(module).__name__
        raise ExportError(
            f"'{name}' ({kind}) drops {chance:g} at random, which cannot be compared "
            "with torch. --without-dropout exports the model without that"
        )


def switch_off(model: nn.Module) -> None:
    """Let no layer of a model drop anything."""
    for _, module, attribute in _droppers(model):
        setattr(module, attribute, 0.0)


def forbid_draws(graph: torch.fx.GraphModule) -> None:
    """Raise `ExportError` if a traced program draws random numbers."""
    for node in graph.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags:
            raise ExportError(
                f"the model draws random numbers ({node.target}), which cannot be "
                "compared with torch. Use layers such as nn.Dropout, which "
                "--without-dropout switches off"
            )


def _droppers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for name, module in model.named_modules():
        attribute = ""
        if isinstance(module, _DropoutNd):
            attribute = "p"
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            attribute = "dropout"
        if attribute and getattr(module, attribute) > 0:
            yield name, module, attribute
