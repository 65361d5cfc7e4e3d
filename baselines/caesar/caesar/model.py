"""The model, its training and its test."""

import torch
from flwr_caesar.clients.training import evaluate, train
from torch import Tensor, nn

__all__ = ["Net", "build_model", "evaluate", "train"]


class Net(nn.Module):
    """Two convolutions and two linear layers: 214,090 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=5)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5)
        self.fc1 = nn.Linear(512, 384)
        self.fc2 = nn.Linear(384, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images of shape (n, 1, 28, 28)."""
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def build_model(seed: int) -> Net:
    """Return the initial model: the same wherever it is built."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()
