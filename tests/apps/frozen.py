"""Frozen weights, the whole state dict sent: linear probing, and BitFit."""

from collections.abc import Callable

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import nn

from .app import App, reply_to
from .data import digits
from .torch_app import accuracy_of, initial_of, load, train_loop

LR = 0.3


def probing() -> nn.Module:
    """A frozen backbone and a head of 1,290 weights."""
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model[0].requires_grad_(False)
    return model


def small_head() -> nn.Module:
    """The same with a head of which no tensor has 1,024 elements."""
    model = nn.Sequential(nn.Linear(64, 90), nn.ReLU(), nn.Linear(90, 10))
    model[0].requires_grad_(False)
    return model


def bitfit() -> nn.Module:
    """Only biases and norms train, of a network that is wide enough for that."""
    model = nn.Sequential(
        nn.Linear(64, 128),
        nn.LayerNorm(128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.LayerNorm(128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim == 1)
    return model


def client_of(build: Callable[[], nn.Module]) -> Callable[[list[Mod]], ClientApp]:
    def client_app(mods: list[Mod]) -> ClientApp:
        app = ClientApp(mods=mods)

        @app.train()
        def train(msg: Message, context: Context) -> Message:
            model = load(build(), msg.content["arrays"])
            examples, _ = train_loop(model, digits(), msg, context, lr=LR, steps=20)
            return reply_to(msg, torch_state(model), examples=examples)

        return app

    return client_app


def torch_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return model.state_dict()


APPS = [
    App(
        title,
        client_of(build),
        initial_of(build),
        accuracy_of(build, digits()),
        rounds=5,
    )
    for title, build in {
        "frozen backbone, linear probing": probing,
        "frozen backbone, head of small tensors": small_head,
        "BitFit: only biases and norms train": bitfit,
    }.items()
]
