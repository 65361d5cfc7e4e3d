r"""Devices a second in one process: Flower alone, us with real frames, and BlazeFL.

Each device takes the model, makes one SGD step on each of two batches of 32 random
images, and returns it. BlazeFL 3.0.0 hands tensors over within its process; ours and
plain Flower's messages pass their wire form, and ours are compressed both ways. The
runs take turns in one process, on one thread. Caesar's ledger knows as many devices as
there are nodes. Writes docs/benchmarks/devices.md.

    python benchmarks/devices.py --blazefl FOLDER

FOLDER has the package ``blazefl`` of its wheel. That says that it needs Python 3.14,
and runs on 3.11 where annotations are not evaluated and two functions lose their type
parameter:

    sed -i 's/\[T\](/(/' blazefl/core/utils.py
    find blazefl -name '*.py' -exec sed -i '1i from __future__ import annotations' {} +
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import random
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from torch import nn

from flwr_caesar.clients import CompressionMod
from flwr_caesar.clients.torch_records import record_to_state, state_to_record
from flwr_caesar.clients.training import train
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import Caesar
from flwr_caesar.sync.ledger_api import DeviceRow
from flwr_caesar.tasks.models import build_model

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "devices.md"
BATCH, BATCHES = 32, 2
SHAPE = {"input_shape": [1, 28, 28], "num_classes": 10}
MODELS = {
    "MLP": {"name": "mlp", "hidden": 20, **SHAPE},
    "CNN": {"name": "cnn", **SHAPE},
}


def examples() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return what every device trains on."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * BATCHES, *SHAPE["input_shape"]), np.float32)
    return x, rng.integers(0, SHAPE["num_classes"], BATCH * BATCHES)


class Stopwatch:
    """CPU and wall seconds of each round."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def lap(self) -> None:
        """End a round."""
        self.ends.append((time.process_time(), time.monotonic()))

    def least(self) -> tuple[float, float]:
        """Return the least of both, over all rounds but the first."""
        pairs = zip(self.ends, self.ends[1:], strict=False)
        cpu, wall = zip(*((c - a, d - b) for (a, b), (c, d) in pairs), strict=True)
        return min(cpu), min(wall)


class TimedFedAvg(FedAvg):
    """Flower's FedAvg, which says when a round has ended."""

    watch: Stopwatch

    def aggregate_train(self, *args: Any, **kwargs: Any) -> Any:
        """Aggregate, and note the time."""
        found = super().aggregate_train(*args, **kwargs)
        self.watch.lap()
        return found


def app(model: dict[str, Any], *, plain: bool) -> ClientApp:
    """Return the app of a device."""
    first = state_to_record(build_model(model, 0).state_dict())
    mods = [] if plain else [CompressionMod(initial=first)]
    made = ClientApp(mods=mods)
    x, y = examples()
    net = build_model(model, 0)  # one for all devices, as BlazeFL's trainer has

    @made.train()
    def train_one(msg: Message, context: Context) -> Message:
        net.load_state_dict(record_to_state(msg.content.array_records["arrays"]))
        train(net, x, y, batch_size=BATCH, lr=0.05, epochs=1)
        content = RecordDict({"arrays": state_to_record(net.state_dict())})
        content["metrics"] = MetricRecord({"num-examples": len(y)})
        return Message(content, reply_to=msg)

    return made


def flower(model: dict[str, Any], given: argparse.Namespace, *, plain: bool) -> Any:
    """Return the seconds of a round of Flower's messages, compressed or not."""
    watch = Stopwatch()
    share = given.asked / given.nodes
    limits = {"min_available_nodes": 1, "min_train_nodes": 1}
    kind = TimedFedAvg if plain else FedAvg
    inner = kind(fraction_train=share, fraction_evaluate=0.0, **limits)
    inner.watch = watch
    strategy: Strategy = inner
    if not plain:
        strategy = Caesar(inner, shared_start=True, on_record=lambda _: watch.lap())
        ledger = strategy._exchange.ledger
        nodes = range(1, given.nodes + 1)
        ids = [hashlib.sha256(b"%d" % node).hexdigest()[:32] for node in nodes]
        ledger._rows.update((name, DeviceRow(name)) for name in ids)
        ledger._nodes.update(zip(nodes, ids, strict=True))
    grid = InlineGrid(app(model, plain=plain), given.nodes)
    random.seed(0)
    first = state_to_record(build_model(model, 0).state_dict())
    strategy.start(
        grid, first, num_rounds=given.rounds, train_config=ConfigRecord({"lr": 0.05})
    )
    for record in getattr(strategy, "history", []):
        if record.dropped:
            raise SystemExit(f"replies were dropped: {record.dropped}")
    return watch.least()


def blazefl(model: dict[str, Any], given: argparse.Namespace) -> Any:
    """Return the seconds of a round of BlazeFL's own FedAvg, one client at a time."""
    from blazefl.contrib import fedavg as peer
    from torch.utils.data import DataLoader, TensorDataset

    peer.tqdm = lambda items, **_: items  # no bar of progress
    x, y = (torch.from_numpy(each) for each in examples())
    data = TensorDataset(x, y)

    class Data:
        def get_dataloader(self, **asked: Any) -> DataLoader[Any]:
            return DataLoader(data, batch_size=asked["batch_size"], shuffle=True)

    class Selector:
        def select_model(self, name: str) -> nn.Module:
            return build_model(model, 0)

    watch = Stopwatch()
    handler = peer.FedAvgBaseServerHandler(
        model_selector=Selector(),
        model_name="model",
        dataset=Data(),
        global_round=given.rounds,
        num_clients=given.nodes,
        sample_ratio=given.asked / given.nodes,
        device="cpu",
        batch_size=BATCH,
        seed=0,
    )
    trainer = peer.FedAvgBaseClientTrainer(
        model_selector=Selector(),
        model_name="model",
        dataset=Data(),
        device="cpu",
        num_clients=given.nodes,
        epochs=1,
        batch_size=BATCH,
        lr=0.05,
        seed=0,
    )
    while not handler.is_stopped():
        asked = handler.sample_clients()
        trainer.local_process(handler.downlink_package(), asked)
        for pack in trainer.uplink_package():
            handler.load(pack)
        watch.lap()
    return watch.least()


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--blazefl", type=Path, help="folder of the package")
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    kinds: dict[str, Callable[[dict[str, Any]], Any]] = {
        "Flower, FedAvg": lambda model: flower(model, given, plain=True),
        "flwr-caesar, Caesar": lambda model: flower(model, given, plain=False),
    }
    if given.blazefl:
        sys.path.insert(0, str(given.blazefl))
        kinds["BlazeFL 3.0.0, FedAvg"] = lambda model: blazefl(model, given)
    rows = []
    for title, model in MODELS.items():
        size = sum(p.numel() for p in build_model(model, 0).parameters())
        best: dict[str, tuple[float, float]] = {}
        for _ in range(given.repeats):
            for kind, measure in kinds.items():
                found = measure(model)
                print(title, kind, *(f"{each:.2f} s" for each in found), flush=True)
                held = best.get(kind, found)
                best[kind] = (min(held[0], found[0]), min(held[1], found[1]))
        for kind, (cpu, wall) in best.items():
            rows.append(
                f"| {title}, {size:,} | {kind} | {given.asked / cpu:.0f} "
                f"| {given.asked / wall:.0f} |"
            )
    load = " ".join(f"{each:.0f}" for each in os.getloadavg())
    command = f"python benchmarks/devices.py --asked {given.asked}"
    command += f" --rounds {given.rounds} --repeats {given.repeats}"
    lines = [
        "# Devices a second",
        "",
        textwrap.fill(
            f"One process and thread; {given.nodes:,} nodes, all of them in Caesar's "
            f"ledger, {given.asked} of them asked in a round. A device trains on "
            f"{BATCHES} batches of {BATCH} images. The best of {given.rounds - 1} "
            f"rounds after the first, and of {given.repeats} runs in turn: devices a "
            "CPU second, and a second. BlazeFL hands tensors over in memory; Flower's "
            "and our messages pass their wire form, and ours are compressed both ways; "
            "a download that many devices are sent is decoded once, as in any run in "
            "one process. BlazeFL's FedAvg is its own, one client at a time, with "
            "PyTorch's data "
            "loader; it asks for Python 3.14 and ran on the one below, without the "
            "type parameters of two functions.",
            width=88,
        ),
        "",
        "| model, parameters | what | devices a CPU s | a s |",
        "| --- | --- | --: | --: |",
        *rows,
        "",
        f"Load of the machine at the end, its own share included: {load}.",
        "",
        describe(f"{command} --blazefl FOLDER", ("flwr", "torch")),
    ]
    print("\n".join(rows))
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
