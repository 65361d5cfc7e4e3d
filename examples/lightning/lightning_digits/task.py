"""The model and the data: put your own here."""

import logging
import warnings

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(LightningModule):
    """A small network for handwritten digits."""

    def __init__(self, lr: float = 5e-3) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the ten digits."""
        return self.net(x)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Return the loss of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser, which is new in each round."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def train(model: Classifier, x: Tensor, y: Tensor, *, epochs: int) -> None:
    """Train in place with Lightning's Trainer."""
    loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few batches and workers
        trainer.fit(model, loader)


@torch.no_grad()
def test(model: Classifier, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return loss and accuracy."""
    model.eval()
    scores = model(x)
    loss = float(nn.functional.cross_entropy(scores, y))
    return loss, float((scores.argmax(1) == y).float().mean())


def load_partition(partition_id: int, num_partitions: int) -> tuple[Tensor, Tensor]:
    """Return the images and labels of one device."""
    x, y = _images(test=False)
    own = slice(partition_id, None, num_partitions)
    return x[own], y[own]


def load_file(path: str) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a real device: an .npz file with x and y."""
    with np.load(path, allow_pickle=False) as file:
        x = torch.tensor(file["x"], dtype=torch.float32)
        return x, torch.tensor(file["y"], dtype=torch.int64)


def load_test() -> tuple[Tensor, Tensor]:
    """Return the images and labels that no device trains on."""
    return _images(test=True)


def _images(*, test: bool) -> tuple[Tensor, Tensor]:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    chosen = order[:360] if test else order[360:]
    x = torch.tensor(digits.data[chosen] / 16, dtype=torch.float32)
    return x, torch.tensor(digits.target[chosen])
