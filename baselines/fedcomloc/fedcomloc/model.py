"""The model, its training and its test."""

from functools import partial

import torch
from flwr.app import Message
from flwr_caesar.clients.fedcomloc import corrects, fedcomloc
from flwr_caesar.clients.training import evaluate
from flwr_caesar.clients.training import train as train_plainly
from flwr_caesar.tasks import Examples
from torch import Tensor, nn

__all__ = ["Net", "build_model", "evaluate", "train"]


class Net(nn.Module):
    """Three linear layers, the 2NN of the FedAvg paper: 199,210 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 200)
        self.fc2 = nn.Linear(200, 200)
        self.fc3 = nn.Linear(200, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images of shape (n, 1, 28, 28)."""
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc3(torch.relu(self.fc2(x)))


def build_model(seed: int) -> Net:
    """Return the initial model: the same wherever it is built."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


def train(
    model: Net,
    examples: Examples,
    message: Message,
    *,
    batch_size: int,
    lr: float,
    seed: int,
) -> float:
    """Train for as many steps as the message asks for, and return the mean loss.

    FedComLoc's control variates, which come in the message, correct each step.
    """
    config = message.content["config"]
    correct = partial(fedcomloc, message=message) if corrects(message) else None
    result = train_plainly(
        model,
        examples.x,
        examples.y,
        steps=int(config["local-steps"]),
        batch_size=batch_size,
        lr=lr,
        seed=seed + int(config["server-round"]),
        correct=correct,
    )
    return result["loss"]
