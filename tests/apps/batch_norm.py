"""Batch norm as MONAI's networks have it, on features of which some are constant.

The running variance of a constant feature goes to zero, and must not go below.
"""

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Result, Strategy
from torch import nn

from .app import App, reply_to
from .data import digits
from .torch_app import accuracy_of, initial_of, load, train_loop


def build() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(64),  # several pixels are the same in all images
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


accuracy = accuracy_of(build, digits())


def accuracy_if_sound(arrays: ArrayRecord) -> float:
    variances = [a.numpy() for n, a in arrays.items() if n.endswith("running_var")]
    if any((variance < 0).any() for variance in variances):
        return float("nan")
    return accuracy(arrays)


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = load(build(), msg.content["arrays"])
        for norm in (model[0], model[2]):
            if bool((norm.running_var < 0).any()):
                raise ValueError("a running variance below zero")
        examples, _ = train_loop(model, digits(), msg, context, lr=0.05, steps=15)
        return reply_to(msg, model.state_dict(), examples=examples)

    return app


def batches_counted(strategy: Strategy, result: Result) -> object:
    assert result.arrays is not None
    counted = result.arrays["0.num_batches_tracked"].numpy()
    return float(np.rint(counted))


APPS = [
    App(
        "batch norm, constant features",
        client_app,
        initial_of(build),
        accuracy_if_sound,
        observe=batches_counted,
        rounds=4,
    ),
    App(
        "batch norm, constant features, lattice download",
        client_app,
        initial_of(build),
        accuracy_if_sound,
        observe=batches_counted,
        rounds=4,
        options={
            name: {"downlink": "lattice"}
            for name in ("TopK", "ErrorBounded", "CorrelationAware")
        },
    ),
]
