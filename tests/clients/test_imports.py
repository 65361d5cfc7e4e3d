"""What a device imports, as each message on a SuperNode is a new process."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import Caesar

from ..strategies.apps import initial_model, numpy_app
from ..strategies.local_grid import LocalGrid

FOR_AN_APP = {
    "flwr_caesar",
    "flwr_caesar.clients",
    "flwr_caesar.clients.mod",
    "flwr_caesar.flower",
    "flwr_caesar.frozen",
    "flwr_caesar.sync",
    "flwr_caesar.sync.sources",
}
NOT_ON_A_DEVICE = (
    "torch",
    "hydra",
    "sqlite3",
    "flwr_caesar.cli",
    "flwr_caesar.codec.codecs.error_bounded",
    "flwr_caesar.codec.codecs.topk",
    "flwr_caesar.codec.conformance",
    "flwr_caesar.codec.predictors.bounded_tensor",
    "flwr_caesar.codec.predictors.correlated_tensor",
    "flwr_caesar.codec.predictors.low_rank",
    "flwr_caesar.codec.predictors.predict",
    "flwr_caesar.codec.published.model_steps",
    "flwr_caesar.codec.published.publication",
    "flwr_caesar.clients.bound_check",
    "flwr_caesar.clients.control_variates",
    "flwr_caesar.clients.recording",
    "flwr_caesar.clients.recovery",
    "flwr_caesar.clients.shared_prediction",
    "flwr_caesar.clients.shared_start",
    "flwr_caesar.faults",
    "flwr_caesar.methods.bounds",
    "flwr_caesar.methods.control",
    "flwr_caesar.methods.registry",
    "flwr_caesar.plan",
    "flwr_caesar.records",
    "flwr_caesar.results",
    "flwr_caesar.runner",
    "flwr_caesar.strategies",
    "flwr_caesar.sync.checkpoint",
    "flwr_caesar.sync.context_store",
    "flwr_caesar.sync.holders",
    "flwr_caesar.sync.ledger",
    "flwr_caesar.sync.ledger_api",
    "flwr_caesar.sync.server",
    "flwr_caesar.sync.strategy_state",
    "flwr_caesar.tasks",
)
MESSAGE = """
import json, pickle, sys
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from flwr_caesar.clients import compression_mod

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
request, folder = sys.argv[1:]
with open(request, "rb") as file:
    arrays, configs = pickle.load(file)
content = RecordDict({name: ConfigRecord(config) for name, config in configs.items()})
for name, own in arrays.items():
    content[name] = ArrayRecord({key: Array(*array) for key, array in own.items()})

def app(msg, context):
    assert "flwr_caesar.clients.handling" in sys.modules
    return Message(RecordDict(dict(msg.content.items())), reply_to=msg)

message = Message(content, dst_node_id=1, message_type="train")
context = Context(1, 1, {"state-dir": folder}, RecordDict(), {})
reply = compression_mod(message, context, app)
assert reply.has_content()
compiled = {
    each.__qualname__
    for name, module in sys.modules.items()
    if name.startswith("flwr_caesar")
    for each in vars(module).values()
    if isinstance(each, type) and each.__module__ == name
    if "__dataclass_fields__" in vars(each)
    if vars(each)["__init__"].__module__ != "flwr_caesar.frozen"
}
print(json.dumps([*compiled]))
print(json.dumps(sorted(sys.modules)))
"""


def run(code: str, *arguments: str) -> list[set[str]]:
    """Return the lists of texts that a fresh process prints, one a line."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [set(json.loads(line)) for line in done.stdout.splitlines()]


def test_an_app_that_names_the_mod_imports_next_to_nothing():
    code = "import flwr_caesar.clients, json, sys; print(json.dumps([*sys.modules]))"
    (names,) = run(code)
    assert {name for name in names if name.startswith("flwr_caesar")} == FOR_AN_APP


@pytest.fixture(scope="module")
def after_a_message(tmp_path_factory) -> list[set[str]]:
    """Classes that were compiled, and modules, of a process after a message."""
    folder = tmp_path_factory.mktemp("message")
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 2)
    Caesar(FedAvg()).start(grid, initial_model(), num_rounds=1)
    content = grid.sent[0][1]
    arrays = {
        name: {k: (a.dtype, a.shape, a.stype, bytes(a.data)) for k, a in own.items()}
        for name, own in content.array_records.items()
    }
    configs = {name: dict(own) for name, own in content.config_records.items()}
    request = folder / "request"
    request.write_bytes(pickle.dumps((arrays, configs)))
    return run(MESSAGE, str(request), str(folder / "state"))


def test_a_message_imports_nothing_that_is_not_of_a_device(after_a_message):
    _, names = after_a_message
    assert "flwr_caesar.codec.codecs.lattice" in names
    found = [
        name
        for name in sorted(names)
        if any(name == each or name.startswith(each + ".") for each in NOT_ON_A_DEVICE)
    ]
    assert not found


def test_a_message_compiles_the_methods_of_no_dataclass(after_a_message):
    compiled, _ = after_a_message
    assert not compiled, "flwr_caesar.frozen makes them sooner"
