"""A training message of Caesar as a SuperNode's device meets it: in a new process.

`record` keeps the request of a third round, and the state of the device before it;
`answer` has a fresh process answer it, and says which modules that took.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import Caesar

ROUND = 3
_ANSWER = """
import json, pickle, shutil, sys, time
import flwr.clientapp
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
folder = sys.argv[1]
with open(f"{folder}/request", "rb") as file:
    arrays, configs = pickle.load(file)

def message():
    content = RecordDict({name: ConfigRecord(own) for name, own in configs.items()})
    for name, own in arrays.items():
        content[name] = ArrayRecord({key: Array(*each) for key, each in own.items()})
    return Message(content, dst_node_id=1, message_type="train")

def app(msg, context):
    return Message(RecordDict(dict(msg.content.items())), reply_to=msg)

def answered():
    shutil.rmtree(f"{folder}/state", ignore_errors=True)
    shutil.copytree(f"{folder}/before", f"{folder}/state")
    request = message()
    context = Context(1, 1, {"state-dir": f"{folder}/state"}, RecordDict(), {})
    start = time.process_time()
    from flwr_caesar.clients import compression_mod
    reply = compression_mod(request, context, app)
    spent = time.process_time() - start
    assert reply.has_content()
    return spent

message()
before = set(sys.modules)
first = answered()
modules = [name for name in sys.modules if name not in before]
print(json.dumps([modules, first - min(answered() for _ in range(5))]))
"""


class _Recorder(InlineGrid):
    """One device with a state folder; keeps what there is before the last round."""

    def __init__(self, app: ClientApp, folder: Path) -> None:
        super().__init__(app, 1)
        self.contexts[1].node_config["state-dir"] = str(folder / "live")
        self._folder, self._round = folder, 0

    def _reply(self, message_id: str, message: Message) -> Message:
        self._round += 1
        if self._round == ROUND:
            content = message.content
            arrays = {
                name: {k: (a.dtype, a.shape, a.stype, a.data) for k, a in own.items()}
                for name, own in content.array_records.items()
            }
            configs = {name: dict(own) for name, own in content.config_records.items()}
            (self._folder / "request").write_bytes(pickle.dumps((arrays, configs)))
            shutil.copytree(self._folder / "live", self._folder / "before")
        return super()._reply(message_id, message)


def record(folder: Path) -> None:
    """Train three rounds of a model of 10,000 parameters, and keep the last request."""
    rng = np.random.default_rng(0)
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg: Message, context: object) -> Message:
        del context
        arrays = {
            name: own.numpy() + np.float32(0.1) * rng.normal(size=own.shape)
            for name, own in msg.content.array_records["arrays"].items()
        }
        trained = {k: Array(v.astype(np.float32)) for k, v in arrays.items()}
        content = RecordDict({"arrays": ArrayRecord(trained)})
        content["metrics"] = MetricRecord({"num-examples": 10})
        return Message(content, reply_to=msg)

    model = {"weight": rng.normal(size=(64, 150)), "bias": rng.normal(size=64)}
    first = ArrayRecord({k: Array(v.astype(np.float32)) for k, v in model.items()})
    limits = {"min_available_nodes": 1, "min_train_nodes": 1}
    strategy = Caesar(FedAvg(fraction_evaluate=0.0, **limits))
    strategy.start(_Recorder(app, folder), first, num_rounds=ROUND)
    if any(each.dropped for each in strategy.history):
        raise SystemExit("a reply was dropped")


def answer(folder: Path) -> tuple[list[str], float]:
    """Have a fresh process answer the request.

    Returns
    -------
    modules : list of str
        Those that it had not imported before, in order.
    seconds : float
        CPU seconds that this took more than the same message the next time.
    """
    done = subprocess.run(
        [sys.executable, "-c", _ANSWER, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
    )
    modules, seconds = json.loads(done.stdout.splitlines()[-1])
    return modules, seconds
