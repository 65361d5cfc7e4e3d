"""A causal mask in the state dict: a buffer whose upper half is minus infinity."""

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import Result, Strategy
from torch import nn

from .app import App, reply_to
from .data import digits
from .torch_app import accuracy_of, initial_of, load, train_loop


class Attention(nn.Module):
    """Reads an image row by row, each row attending to those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.output = nn.Linear(256, 10)
        mask = torch.full((8, 8), -torch.inf).triu(1)
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.embed(x.view(-1, 8, 8))
        scores = self.query(rows) @ self.key(rows).mT / 32**0.5 + self.mask
        return self.output((rows + scores.softmax(-1) @ self.value(rows)).flatten(1))


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = load(Attention(), msg.content["arrays"])
        examples, _ = train_loop(model, digits(), msg, context, lr=0.2, steps=15)
        return reply_to(msg, model.state_dict(), examples=examples)

    return app


def mask_is_the_same(strategy: Strategy, result: Result) -> object:
    assert result.arrays is not None
    mask = result.arrays["mask"].numpy()
    return bool(np.array_equal(mask, Attention().mask.numpy()))


APP = App(
    "causal mask of -inf in the state dict",
    client_app,
    initial_of(Attention),
    accuracy_of(Attention, digits()),
    rounds=4,
    observe=mask_is_the_same,
)
