"""CPU seconds of one training message on a device, by what they are spent on.

Caesar trains an 11-million-parameter model with one device, whose state is in a folder;
the app adds noise, and its time is not counted. The least of the rounds from the fourth
on, in which the model on the disk is in several files. Writes
docs/benchmarks/device-message.md.

    OMP_NUM_THREADS=1 python benchmarks/device_message.py
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from models import resnet18_arrays

from flwr_caesar.clients import compression_mod, handling
from flwr_caesar.codec import Codec
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import Caesar
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.transport import arrays_to_record
from flwr_caesar.transport.npy import to_flower

TABLE = Path(__file__).parents[1] / "docs" / "benchmarks" / "device-message.md"
ENCODING = "the codec: encoding"
STEPS: tuple[tuple[Any, str, str], ...] = (
    (FolderStore, "load", "state: load"),
    (handling, "receive", "the codec: decoding, and the digest"),
    (FolderStore, "prepare", "state: the model written"),
    (handling, "as_plain", "the app's records"),
    (handling, "give_back", "memory given back"),
    (handling, "subtract", "the update"),
    (Codec, "encode_decoded", ENCODING),
    (handling, "commit_update", "the residual, before and after"),
    (FolderStore, "save", "state: the rest written"),
)


class Spent:
    """CPU seconds by step, since they were reset."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        for owner, name, what in STEPS:
            setattr(owner, name, self.timed(getattr(owner, name), what))

    def timed(self, call: Callable[..., Any], what: str) -> Callable[..., Any]:
        """Return a function that does the same and is timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.process_time() - start
                self.seconds[what] = self.seconds.get(what, 0.0) + spent

        return timed


class Device(InlineGrid):
    """One node, whose messages are timed without its app."""

    def __init__(self, folder: str, spent: Spent) -> None:
        self.spent = spent
        self.rounds: list[dict[str, float]] = []
        self.noise: dict[str, np.ndarray[Any, Any]] = {}
        app = ClientApp(mods=[compression_mod])
        app.train()(spent.timed(self.train, "app"))
        super().__init__(app, 1)
        self.contexts[1].node_config["state-dir"] = folder

    def train(self, msg: Message, context: Context) -> Message:
        """Add the same noise in every round."""
        rng = np.random.default_rng(0)
        trained = ArrayRecord()
        for name, array in msg.content.array_records["arrays"].items():
            values = array.numpy()
            if values.dtype == np.float32:
                if name not in self.noise:
                    noise = 1e-2 * values.std() * rng.laplace(size=values.shape)
                    self.noise[name] = noise.astype(np.float32)
                values = values + self.noise[name]
            trained[name] = to_flower(values)
        content = RecordDict({"arrays": trained})
        content["metrics"] = MetricRecord({"num-examples": 10})
        return Message(content, reply_to=msg)

    def _reply(self, message_id: str, message: Message) -> Message:
        self.spent.seconds.clear()
        start = time.process_time()
        reply = super()._reply(message_id, message)
        took = dict(self.spent.seconds)
        whole = time.process_time() - start - took.pop("app")
        took["the residual, before and after"] -= took[ENCODING]
        took["everything else"] = whole - sum(took.values())
        self.rounds.append({**took, "the whole message": whole})
        print(" ".join(f"{name} {s:.3f};" for name, s in took.items()), flush=True)
        return reply


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        device = Device(folder, Spent())
        limits = {"min_available_nodes": 1, "min_train_nodes": 1}
        strategy = Caesar(FedAvg(fraction_evaluate=0.0, **limits))
        model = arrays_to_record(resnet18_arrays())
        strategy.start(device, model, num_rounds=given.rounds)
    for record in strategy.history:
        if record.dropped:
            raise SystemExit(f"replies were dropped: {record.dropped}")
    late = device.rounds[3:]
    least = {name: min(each[name] for each in late) for name in late[0]}
    load = " ".join(f"{each:.0f}" for each in os.getloadavg())
    lines = [
        "# A message on a device",
        "",
        "CPU milliseconds of a training message of `Caesar(FedAvg())` with ResNet-18's",
        "122 tensors (11.2 million parameters), without the app's own; the least of",
        f"{len(late)} rounds from the fourth on, each step's for itself. The state is",
        "in a folder: the model in blocks, the residual in 16 bits.",
        "",
        "| what | CPU ms |",
        "| --- | --: |",
        *(f"| {name} | {1e3 * seconds:.0f} |" for name, seconds in least.items()),
        "",
        f"Load of the machine at the end, its own share included: {load}.",
        "",
        describe(f"python benchmarks/device_message.py --rounds {given.rounds}"),
    ]
    print("\n".join(lines))
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
