"""A LightningModule, trained by Lightning's Trainer."""

import logging
import warnings
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from .app import App, partition_of, reply_to
from .data import digits


def module() -> Any:
    from lightning.pytorch import LightningModule

    class Classifier(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=5e-3)

    return Classifier()


def load(arrays: ArrayRecord) -> Any:
    model = module()
    model.load_state_dict(arrays.to_torch_state_dict())
    return model


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        from lightning.pytorch import Trainer

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        model = load(msg.content["arrays"])
        index, count = partition_of(context)
        x, y = (torch.as_tensor(part[index::count]) for part in digits()[:2])
        loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = Trainer(
                max_epochs=1,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(model, loader)
        return reply_to(msg, model.state_dict(), examples=len(y))

    return app


def initial_arrays(seed: int) -> ArrayRecord:
    torch.manual_seed(seed)
    return ArrayRecord(module().state_dict())


def accuracy(arrays: ArrayRecord) -> float:
    x, y = (torch.as_tensor(part) for part in digits()[2:])
    with torch.no_grad():
        return (load(arrays)(x).argmax(1) == y).float().mean().item()


APP = App(
    "LightningModule by Lightning's Trainer",
    client_app,
    initial_arrays,
    accuracy,
    rounds=4,
    nodes=2,
    needs=("lightning.pytorch",),
)
