"""What FedComLoc's server asks of an app's optimiser."""

from __future__ import annotations

import json
from typing import Any

import torch
from flwr.app import Message
from torch import nn

from flwr_caesar.flower import arrays_in, configs_in
from flwr_caesar.transport import CONTROL_KEY

from .compressors import compressor
from .scaffnew import AnySGD, scaffnew


def fedcomloc(optimizer: AnySGD, model: nn.Module, message: Message) -> AnySGD:
    """Make an optimiser's steps those that a training message asks for.

    The one line that FedComLoc changes in a training loop::

        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        optimizer = fedcomloc(optimizer, model, message)

    The message's control variates correct the gradient, and FedComLoc-Local's
    compressor says where it is taken. The optimiser of a message that has neither, such
    as one of another strategy, is returned as it is. How many steps to take stands in
    the message's configuration as ``"local-steps"``.

    Parameters
    ----------
    optimizer : torch.optim.SGD
        See `flwr_caesar.clients.scaffnew.scaffnew`.
    model : torch.nn.Module
        The module that the training loop calls, on its device.
    message : Message
        Of the server, as the app gets it.

    Raises
    ------
    ValueError
        If the optimiser has another step size than the server was told, or is refused
        by `scaffnew`.
    """
    if not corrects(message):
        return optimizer
    config = _config(message)
    control = arrays_in(message.content).get(CONTROL_KEY)
    compress = config.get("compress")
    if control is not None:
        _check_rate(optimizer, config.get("lr"))
    return scaffnew(
        optimizer,
        model,
        {name: array.numpy() for name, array in (control or {}).items()},
        compress=compressor(json.loads(compress)) if compress else None,
    )


def corrects(message: Message) -> bool:
    """Whether a training message asks for other steps than those of plain SGD.

    If not, `fedcomloc` returns the optimiser that it is given, and an app need not make
    one for it.

    Parameters
    ----------
    message : Message
        Of the server, as the app gets it.
    """
    return CONTROL_KEY in arrays_in(message.content) or "compress" in _config(message)


def _config(message: Message) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for record in configs_in(message.content).values():
        config |= record
    return config


def _check_rate(optimizer: torch.optim.Optimizer, told: object) -> None:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    if any(rate != told for rate in rates):
        raise ValueError(
            f"the optimiser has lr {rates[0]}, the server's FedComLoc {told}; control "
            "variates need the same on both sides"
        )
