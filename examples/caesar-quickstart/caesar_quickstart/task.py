"""The model and the data: put your own here."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def build_model() -> nn.Module:
    """Return the initial model: the same wherever it is built."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


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


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    lr: float,
    batch_size: int = 16,
) -> float:
    """Train in place and return the mean loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    losses = []
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def test(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return loss and accuracy."""
    model.eval()
    scores = model(x)
    loss = float(nn.functional.cross_entropy(scores, y))
    return loss, float((scores.argmax(1) == y).float().mean())


def _images(*, test: bool) -> tuple[Tensor, Tensor]:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    chosen = order[:360] if test else order[360:]
    x = torch.tensor(digits.data[chosen] / 16, dtype=torch.float32)
    return x, torch.tensor(digits.target[chosen])
