"""A frozen backbone travels once: down to each device, and never up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.app import RecordDict as Content
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies.unchanged import MAX_VERSIONS, Unchanged, restored
from flwr_caesar.sync.errors import DamagedStateError
from flwr_caesar.transport import arrays_to_record, record_to_arrays
from tests.apps.grid import content_nbytes
from tests.apps.strategies import OURS

from .local_grid import LocalGrid

NAMES = [name for name in OURS if name != "Uncompressed"]
EXACT = [name for name in NAMES if name not in ("Caesar", "Caesar paper")]
HEAD = {"head.weight": (10, 90), "head.bias": (10,)}
BACKBONE = {"backbone.weight": (150, 333), "backbone.bias": (300,)}
HEAD_BYTES = 4 * sum(int(np.prod(shape)) for shape in HEAD.values())
NODES = 3


def initial_model() -> ArrayRecord:
    rng = np.random.default_rng(0)
    return arrays_to_record(
        {
            name: rng.normal(size=shape).astype(np.float32)
            for name, shape in (BACKBONE | HEAD).items()
        }
    )


def app(seen: list[dict[str, np.ndarray]] | None = None) -> ClientApp:
    """Trains its head; `seen` is given what each message says the model is."""
    app = ClientApp(mods=[compression_mod])

    def model_of(msg: Message) -> dict[str, np.ndarray]:
        arrays = record_to_arrays(msg.content["arrays"])
        if seen is not None:
            seen.append({name: array.copy() for name, array in arrays.items()})
        return arrays

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        rng = np.random.default_rng(context.node_id)
        arrays = dict(model_of(msg))
        for name in HEAD:
            step = 0.1 * rng.normal(size=arrays[name].shape)
            arrays[name] = (arrays[name] + step).astype(np.float32)
        return Message(
            Content({"arrays": arrays_to_record(arrays), "metrics": metrics()}),
            reply_to=msg,
        )

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        model_of(msg)
        return Message(Content({"metrics": metrics()}), reply_to=msg)

    return app


def metrics() -> MetricRecord:
    return MetricRecord({"num-examples": 10, "loss": 0.5})


def strategy_of(name: str, **options: object):
    options |= {"lr": 0.1} if name == "FedComLoc" else {}
    # Its default depends on the size of the model, and is on the brink here.
    options |= {"prune_rate": 0.5} if name == "MagnitudePruning" else {}
    return OURS[name](FedAvg(), **options)


def sizes(messages: list[tuple[str, Content]]) -> list[int]:
    return [content_nbytes(content) for _, content in messages]


def keep_in(grid: LocalGrid, folder: Path) -> list[Path]:
    """Let each device keep its state in a folder of its own."""
    folders = []
    for node, context in grid.contexts.items():
        context.node_config["state-dir"] = str(folder / f"device-{node}")
        folders.append(folder / f"device-{node}")
    return folders


class Watched(LocalGrid):
    """Says when a round begins."""

    rounds = 0
    at_round: Callable[[int], None]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        listed = list(messages)
        first = listed[0] if listed else None
        begins = first is not None and "server-round" in first.content["config"]
        if begins and first.metadata.message_type == "train":
            self.rounds += 1
            self.at_round(self.rounds)
        return super().push_messages(listed)


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_backbone_travels_once(name: str) -> None:
    grid, strategy = LocalGrid(app(), NODES), strategy_of(name)
    strategy.start(grid, initial_model(), num_rounds=3)
    assert not any(record.dropped for record in strategy.history)
    # Beside the head: metrics, our note and what Flower wraps around them.
    most = HEAD_BYTES + 1200
    assert min(sizes(grid.sent[:NODES])) > 25_000
    assert max(sizes(grid.sent[NODES:])) < most
    assert max(sizes(grid.received)) < most


@pytest.mark.parametrize("name", EXACT)
def test_what_a_device_works_on_is_the_servers_model(name: str) -> None:
    seen: list[dict[str, np.ndarray]] = []
    grid, strategy = LocalGrid(app(seen), NODES), strategy_of(name)
    result = strategy.start(grid, initial_model(), num_rounds=3)
    for key, array in record_to_arrays(result.arrays).items():
        np.testing.assert_array_equal(seen[-1][key], array)


@pytest.mark.parametrize("name", NAMES)
def test_a_device_that_is_not_what_it_was_gets_the_right_model(
    name: str, tmp_path: Path
) -> None:
    """One has lost its folder, one has an older one, one has another's."""
    seen: list[dict[str, np.ndarray]] = []
    grid = Watched(app(seen), 4)
    lost, older, copied, whole = keep_in(grid, tmp_path)

    def at_round(number: int) -> None:
        if number == 2:
            shutil.copytree(older, tmp_path / "kept")
        if number == 3:
            for folder in (lost, older, copied):
                shutil.rmtree(folder)
            shutil.copytree(tmp_path / "kept", older)
            shutil.copytree(whole, copied)

    grid.at_round = at_round
    strategy = strategy_of(name, max_failed_rounds=0)
    result = strategy.start(grid, initial_model(), num_rounds=4)
    resyncs = [
        reason
        for record in strategy.history
        for reason in record.dropped.values()
        if "whole model" in reason
    ]
    assert resyncs
    assert not strategy.history[-1].dropped
    model = record_to_arrays(result.arrays)
    frozen = record_to_arrays(initial_model())
    for given in seen:
        if name in ("TopK", "ErrorBounded", "CorrelationAware", "Caesar paper"):
            for key in BACKBONE:
                np.testing.assert_array_equal(given[key], frozen[key])
    if name in EXACT:
        for given in seen[-4:]:
            for key, array in model.items():
                np.testing.assert_array_equal(given[key], array)


@pytest.mark.parametrize("name", EXACT)
def test_a_lost_reply_costs_no_second_round(name: str) -> None:
    """The device holds a later model than the server knows of, with the same part."""

    def lose(reply: Message, node: int) -> Message | None:
        return None if node == 1 and 7 <= len(grid.sent) <= 12 else reply

    grid = LocalGrid(app(), 3, tamper=lose)
    strategy = strategy_of(name)
    strategy.start(grid, initial_model(), num_rounds=4, timeout=0.05)
    reasons = [why for record in strategy.history for why in record.dropped.values()]
    assert reasons
    assert not [why for why in reasons if "whole model" in why]


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_goes_on_knows_what_devices_hold(
    name: str, tmp_path: Path
) -> None:
    grid = LocalGrid(app(), NODES)
    first = strategy_of(name, checkpoint=tmp_path)
    first.start(grid, initial_model(), num_rounds=2)
    before = len(grid.sent)
    again = strategy_of(name, checkpoint=tmp_path)
    again.start(grid, initial_model(), num_rounds=3)
    assert not any(record.dropped for record in again.history)
    assert max(sizes(grid.sent[before:])) < HEAD_BYTES + 1200


def models(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    frozen = {"a": rng.normal(size=3), "b": np.array(np.nan, np.float32)}
    return [{**frozen, "c": rng.normal(size=2)} for _ in range(count)]


def known(count: int) -> Unchanged:
    found, before = Unchanged(), None
    for number, model in enumerate(models(count)):
        found = found.publish(bytes([number] * 8), model, before)
        before = model
    return found


def test_what_changed_since_a_version_is_known() -> None:
    found = known(4)
    assert found.since(bytes([0] * 8)) == {"c"}
    assert found.since(bytes([3] * 8)) == set()
    assert found.since(bytes([9] * 8)) is None
    assert restored(found.to_tree()) == found


def test_a_model_that_comes_back_is_the_newest_of_its_name() -> None:
    a, b = models(2)
    found = Unchanged().publish(b"A", a, None).publish(b"B", b, a).publish(b"A", a, b)
    assert found.since(b"A") == set()
    assert found.since(b"B") == {"c"}


def test_after_a_restart_only_the_last_model_is_gone_on_with() -> None:
    found = restored(known(3).to_tree())
    *_, last = models(3)
    assert found.publish(bytes([2] * 8), last, None) == found
    other = found.publish(b"otherone", last, None)
    assert other.since(bytes([0] * 8)) == {"a", "b", "c"}


def test_minus_zero_is_not_zero() -> None:
    found = Unchanged().publish(b"A", {"a": np.zeros(2)}, None)
    found = found.publish(b"B", {"a": -np.zeros(2)}, {"a": np.zeros(2)})
    assert found.since(b"A") == {"a"}


def test_old_versions_are_forgotten() -> None:
    model = {"a": np.zeros(2)}
    found = Unchanged()
    for number in range(MAX_VERSIONS + 2):
        found = found.publish(number.to_bytes(8, "big"), model, model)
    assert len(found.published) == MAX_VERSIONS
    assert found.since(bytes(8)) is None


@pytest.mark.parametrize("tree", [{}, None, {"count": 1, "published": 3}])
def test_damage_is_said(tree: object) -> None:
    with pytest.raises(DamagedStateError, match="published models"):
        restored(tree)
