"""A trained text classifier: embeddings beside weights of another scale.

A norm follows the embeddings, so that their scale changes nothing of the function.
"""

from collections.abc import Callable
from functools import cache

import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import nn
from torch.nn.functional import cross_entropy

from .app import App, reply_to
from .data import topics
from .torch_app import accuracy_of, load, train_loop


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2000, 32)
        self.norm = nn.LayerNorm(32, eps=0.0)
        self.hidden = nn.Linear(32, 48)
        self.output = nn.Linear(48, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.norm(self.embedding(x).mean(1))
        return self.output(torch.relu(self.hidden(mean)))


@cache
def pretrained() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = Classifier()
    x, y = (torch.as_tensor(part) for part in topics()[:2])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(60):
        chosen = slice(step * 50 % 1600, step * 50 % 1600 + 50)
        optimizer.zero_grad()
        cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return model.state_dict()


def initial_of_scale(scale: float) -> Callable[[int], ArrayRecord]:
    def initial(seed: int) -> ArrayRecord:
        state = dict(pretrained())
        state["embedding.weight"] = state["embedding.weight"] * scale
        return ArrayRecord(state)

    return initial


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = load(Classifier(), msg.content["arrays"])
        examples, _ = train_loop(model, topics(), msg, context, lr=0.02)
        return reply_to(msg, model.state_dict(), examples=examples)

    return app


APPS = [
    App(
        f"trained text classifier, embeddings{factor}",
        client_app,
        initial_of_scale(scale),
        accuracy_of(Classifier, topics()),
        rounds=3,
        tested=400,
    )
    for factor, scale in {"": 1.0, " × 1e6": 1e6, " × 1e-6": 1e-6}.items()
]
