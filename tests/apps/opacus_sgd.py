"""DP-SGD by Opacus: gradients clipped for each example, and noise."""

import warnings

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from .app import App, partition_of, reply_to
from .data import digits
from .torch_app import accuracy_of, initial_of, load


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        from opacus import PrivacyEngine

        model = load(build(), msg.content["arrays"])
        index, count = partition_of(context)
        x, y = (torch.as_tensor(part[index::count]) for part in digits()[:2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            private, optimizer, loader = PrivacyEngine().make_private(
                module=model.train(),
                optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
                data_loader=DataLoader(TensorDataset(x, y), batch_size=64),
                noise_multiplier=0.3,
                max_grad_norm=1.0,
            )
            for images, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(private(images), labels).backward()
                optimizer.step()
        return reply_to(msg, model.state_dict(), examples=len(y))

    return app


APP = App(
    "DP-SGD by Opacus",
    client_app,
    initial_of(build),
    accuracy_of(build, digits()),
    rounds=4,
    nodes=3,
    needs=("opacus",),
)
