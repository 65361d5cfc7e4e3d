"""Every name and signature of Flower that we use, against the Flower that is installed.

``make test-flowers`` runs it with other versions. What fails here is what to say, by
name, where flwr-caesar refuses a version.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, strategy
from flwr.serverapp.strategy import FedAvg, Strategy

from flwr_caesar.clients import compression_mod
from flwr_caesar.flower import (
    NodeInfo,
    Run,
    act_in_run,
    arrays_in,
    configs_in,
    error_reply,
    flower_version,
    metrics_in,
    readdress,
    record_of,
)
from flwr_caesar.runner.inline import InlineGrid, through_the_wire
from flwr_caesar.runner.registry import INNER
from flwr_caesar.runner.superlink import executable
from flwr_caesar.strategies import TopK

pytestmark = pytest.mark.flower

NAMES = {
    "flwr.app": {
        "Array",
        "ArrayRecord",
        "ConfigRecord",
        "Context",
        "Error",
        "Message",
        "MessageType",
        "Metadata",
        "MetricRecord",
        "RecordDict",
    },
    "flwr.app.message": {"make_message"},
    "flwr.clientapp": {"ClientApp"},
    "flwr.clientapp.typing": {"ClientAppCallable"},
    "flwr.common.constant": {
        "ErrorCode",
        "SUPERLINK_NODE_ID",
        "SYSTEM_TIME_TOLERANCE",
        "TIMESTAMP_TOLERANCE",
    },
    "flwr.proto.control_pb2": {
        "ListNodesRequest",
        "RegisterNodeRequest",
        "UnregisterNodeRequest",
    },
    "flwr.proto.fleet_pb2": {"ActivateNodeRequest"},
    "flwr.proto.node_pb2": {"NodeInfo"},
    "flwr.serverapp": {"Grid", "ServerApp"},
    "flwr.serverapp.strategy": {
        "DifferentialPrivacyClientSideAdaptiveClipping",
        "DifferentialPrivacyClientSideFixedClipping",
        "FedAdagrad",
        "FedAdam",
        "FedAvg",
        "FedAvgM",
        "FedXgbBagging",
        "FedXgbCyclic",
        "FedYogi",
        "Result",
        "Strategy",
    },
    "flwr.serverapp.strategy.strategy_utils": {"aggregate_metricrecords"},
    "flwr.supercore": {"log"},
    "flwr.supercore.constant": {
        "FLEET_HTTP_PUBLIC_KEY_HEADER",
        "FLWR_PACKAGE_VERSION_METADATA_KEY",
        "SYSTEM_MESSAGE_TYPE",
    },
    "flwr.supercore.control": {"ControlHttpClient"},
    "flwr.supercore.differential_privacy": {"KEY_CLIPPING_NORM"},
    "flwr.supercore.error": {"ApiErrorCode", "FlowerError"},
    "flwr.supercore.primitives.asymmetric": {"public_key_to_bytes"},
    "flwr.supercore.protobuf.client": {"ProtobufCall", "ProtobufRequestContext"},
    "flwr.supercore.run": {"Run"},
    "flwr.supercore.task_identity": {"TaskIdentity"},
    "flwr.supernode.fleet_http_client": {"FleetHttpClient"},
    "flwr.supernode.node_auth_http_interceptor": {"NodeAuthHttpInterceptor"},
}
COMMANDS = {
    ("flower-superlink",): [
        "--insecure",
        "--simulation",
        "--disable-runtime-dependency-installation",
        "--host",
        "--port",
    ],
    ("flower-supernode",): ["--insecure", "--superlink", "--port", "--node-config"],
    ("flwr", "run"): ["--stream", "--run-config", "--federation-config"],
    ("flwr", "list"): ["--run-id", "--format"],
    ("flwr", "stop"): [],
}


PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}


def imported() -> Iterator[tuple[str, str]]:
    """Module and name of each import of Flower's in what we ship."""
    for _, module, name in where_imported():
        yield module, name


def where_imported() -> Iterator[tuple[str, str, str]]:
    """Also the file's name of each."""
    root = Path(__file__).parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    elsewhere = settings["tool"]["setuptools"]["package-dir"].values()
    folders = {root / "flwr_caesar", *(root / place for place in elsewhere)}
    for file in {file for folder in folders for file in folder.rglob("*.py")}:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    assert alias.name.partition(".")[0] != "flwr", file
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if module.partition(".")[0] == "flwr":
                    for alias in node.names:
                        yield file.name, module, alias.name


def test_names_that_are_not_public_have_a_place_of_their_own() -> None:
    private = {file for file, module, _ in where_imported() if module not in PUBLIC}
    assert private == {"flower.py"}


def test_the_list_of_names_is_whole() -> None:
    listed = {(module, name) for module, names in NAMES.items() for name in names}
    assert set(imported()) == listed


@pytest.mark.parametrize("module", sorted(NAMES))
def test_the_names_are_there(module: str) -> None:
    found = import_module(module)
    assert [name for name in sorted(NAMES[module]) if not hasattr(found, name)] == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_commands_know_our_options(command: tuple[str, ...]) -> None:
    answer = subprocess.run(
        [executable(command[0]), *command[1:], "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "400", "TERM": "dumb", "PATH": "/usr/bin:/bin"},
    )
    assert answer.returncode == 0, answer.stderr
    assert [flag for flag in COMMANDS[command] if flag not in answer.stdout] == []


A = object()


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (Strategy.start, [A] * 8, []),
        (Strategy.configure_train, [A] * 5, []),
        (Strategy.configure_evaluate, [A] * 5, []),
        (Strategy.aggregate_train, [A] * 3, []),
        (Strategy.aggregate_evaluate, [A] * 3, []),
        (Strategy.summary, [A], []),
        (Grid.create_message, [A] * 6, []),
        (Grid.get_node_ids, [A], []),
        (Grid.get_nodes, [A], []),
        (Grid.push_messages, [A] * 2, []),
        (Grid.pull_messages, [A] * 2, []),
        (Grid.send_and_receive, [A] * 2, ["timeout"]),
        (Grid.set_run, [A] * 2, []),
        (ClientApp, [], ["mods"]),
        (
            Context,
            [],
            ["run_id", "node_id", "node_config", "state", "run_config"],
        ),
        (Run.create_empty, [], ["run_id"]),
    ],
)
def test_what_we_call_takes_what_we_give(
    function: Callable[..., Any], arguments: list[object], named: list[str]
) -> None:
    inspect.signature(function).bind(*arguments, **dict.fromkeys(named))


def test_the_order_of_what_start_takes() -> None:
    assert [*inspect.signature(Strategy.start).parameters][:8] == [
        "self",
        "grid",
        "initial_arrays",
        "num_rounds",
        "timeout",
        "train_config",
        "evaluate_config",
        "evaluate_fn",
    ]


def test_nothing_more_is_abstract_than_we_implement() -> None:
    assert set(Grid.__abstractmethods__) <= {
        "create_message",
        "get_node_ids",
        "get_nodes",
        "pull_messages",
        "push_messages",
        "run",
        "send_and_receive",
        "set_run",
    }
    assert set(Strategy.__abstractmethods__) <= {
        "aggregate_evaluate",
        "aggregate_train",
        "configure_evaluate",
        "configure_train",
        "summary",
    }


@pytest.mark.parametrize("name", sorted(INNER.values()))
def test_an_inner_strategy_samples_as_we_ask(name: str) -> None:
    built = getattr(strategy, name)(
        fraction_train=0.5,
        fraction_evaluate=0.25,
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=3,
    )
    assert (built.fraction_train, built.fraction_evaluate) == (0.5, 0.25)
    assert built.weighted_by_key == "num-examples"
    assert (built.arrayrecord_key, built.configrecord_key) == ("arrays", "config")


def test_who_takes_a_mean() -> None:
    assert strategy.FedProx.aggregate_train is FedAvg.aggregate_train
    own = {cls.aggregate_train for cls in (strategy.FedMedian, strategy.Krum)}
    assert FedAvg.aggregate_train not in own


def test_privacy_wraps_as_we_look_for_it() -> None:
    inner = FedAvg()
    fixed = strategy.DifferentialPrivacyClientSideFixedClipping(inner, 1.0, 0.5, 3)
    assert fixed.strategy is inner
    assert fixed.clipping_norm == 0.5


def test_an_array_is_what_we_make_of_it() -> None:
    frame = Array("uint8", (3,), "flwr_caesar.frame", b"abc")
    assert (frame.stype, frame.data, tuple(frame.shape)) == (
        "flwr_caesar.frame",
        b"abc",
        (3,),
    )
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(Array(values).numpy(), values)
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(values), "frame": frame}),
            "metrics": MetricRecord({"a": [1, 2], "b": 0.5}),
            "config": ConfigRecord({"s": "x", "b": b"y", "i": 1, "l": [True]}),
        }
    )
    copy = through_the_wire(content)
    assert list(copy) == list(content)
    assert copy["config"] == content["config"]
    assert copy.array_records["arrays"]["frame"].data == b"abc"
    assert [*copy.metric_records["metrics"].items()] == [("a", [1, 2]), ("b", 0.5)]
    assert [*copy.config_records] == ["config"]
    del copy["arrays"]
    assert "arrays" not in copy


def test_contents_are_read_and_copied_as_by_flower() -> None:
    arrays = {"w": Array(np.zeros(3)), "b": Array(np.ones(2))}
    record = record_of(arrays)
    assert record == ArrayRecord(arrays)
    assert all(record[name] is array for name, array in arrays.items())
    metrics, config = MetricRecord({"a": 1}), ConfigRecord({"b": 2})
    content = RecordDict({"arrays": record, "metrics": metrics, "config": config})
    assert arrays_in(content) == dict(content.array_records.items())
    assert metrics_in(content) == dict(content.metric_records.items())
    assert configs_in(content) == dict(content.config_records.items())
    copy = content.copy()
    assert isinstance(copy, RecordDict)
    assert copy == content
    del copy["arrays"]
    assert "arrays" in content
    assert through_the_wire(copy) == copy


def test_a_message_is_what_we_make_of_it() -> None:
    act_in_run(7)
    content = RecordDict({"metrics": MetricRecord({"a": 1})})
    message = Message(
        content, dst_node_id=3, message_type="train", ttl=60.0, group_id="1"
    )
    assert message.has_content()
    assert not message.has_error()
    metadata = message.metadata
    assert (metadata.run_id, metadata.dst_node_id) == (7, 3)
    assert (metadata.message_type, metadata.group_id) == ("train", "1")
    readdress(message, message_id="m")
    assert message.metadata.message_id == "m"
    for what in (RecordDict(), Error(2, "it is cold")):
        reply = Message(what, reply_to=message)
        readdress(reply, src_node_id=3, reply_to_message_id="m")
        assert reply.metadata.src_node_id == 3
        assert reply.metadata.reply_to_message_id == "m"
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (2, "it is cold")
    message.content = RecordDict()
    assert not message.content


def test_a_reply_that_cannot_be_had() -> None:
    reply = error_reply("m", "lost")
    assert reply.has_error()
    assert reply.error.reason == "lost"
    assert reply.metadata.reply_to_message_id == "m"


@pytest.fixture
def grid() -> InlineGrid:
    def train(message: Message, context: Context) -> Message:
        (arrays,) = message.content.array_records.values()
        trained = {name: Array(a.numpy() + 1.0) for name, a in arrays.items()}
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
        content = RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics})
        return Message(content, reply_to=message)

    app = ClientApp(mods=[compression_mod])
    app.train()(train)
    return InlineGrid(app, 3)


def test_a_strategy_of_ours_runs_to_its_end(grid: InlineGrid) -> None:
    wrapped = TopK(FedAvg(fraction_evaluate=0.0), density=1.0, values="float32")
    seen: list[int] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        seen.append(server_round)
        return MetricRecord({"mean": float(arrays["w"].numpy().mean())})

    result = wrapped.start(
        grid,
        ArrayRecord({"w": Array(np.zeros((64, 64), np.float32))}),
        num_rounds=2,
        evaluate_fn=evaluate,
    )
    assert seen == [0, 1, 2]
    np.testing.assert_allclose(result.arrays["w"].numpy(), 2.0)
    assert [len(record.devices) for record in wrapped.history] == [3, 3]
    assert not any(record.dropped for record in wrapped.history)


@pytest.mark.parametrize("keyword", ["message_ids", "reply_to_message_ids", None])
def test_replies_are_pulled_by_either_name_or_all(
    keyword: str | None, grid: InlineGrid
) -> None:
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(3))})})
    messages = [Message(content, dst_node_id=i, message_type="train") for i in (1, 2)]
    ids: Iterable[str] = list(grid.push_messages(messages))
    named = {} if keyword is None else {keyword: ids}
    assert len(list(grid.pull_messages(**named))) == 2
    assert all(isinstance(node, NodeInfo) for node in grid.get_nodes())


def test_a_flower_without_one_of_the_names_is_refused_by_name() -> None:
    code = "import flwr.supercore.run as run\ndel run.Run\nimport flwr_caesar.flower\n"
    answer = subprocess.run(
        [executable("python"), "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"ImportError: flwr-caesar cannot work with {flower_version()}"
    )
    assert "'Run'" in last
