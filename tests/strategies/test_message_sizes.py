"""No message is larger than plain Flower's by more than 200 bytes, ours counted."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.app import RecordDict as Content
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from flwr_caesar.clients import compression_mod
from flwr_caesar.transport import arrays_to_record
from tests.apps.grid import content_nbytes
from tests.apps.strategies import OURS

from .local_grid import LocalGrid

ALLOWANCE = 200
SIZES = (1, 2, 5, 11, 30, 100, 1000)
ROUNDS = 3
Sizes = dict[tuple[str, str], tuple[int, int]]


def app(mods: list) -> ClientApp:
    """Moves all arrays a little; tests with two numbers."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        rng = np.random.default_rng(context.node_id)
        records = {
            name: arrays_to_record(
                {
                    key: array.numpy() + rng.normal(size=array.shape).astype("f4") / 8
                    for key, array in record.items()
                }
            )
            for name, record in msg.content.array_records.items()
            if name in ("arrays", "extra")
        }
        return Message(Content({**records, "metrics": metrics()}), reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        return Message(Content({"metrics": metrics()}), reply_to=msg)

    return app


def metrics() -> MetricRecord:
    return MetricRecord({"num-examples": 10, "loss": 0.5})


class TwoRecords(FedAvg):
    """Sends another record of as many numbers beside the model."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        extra = {name: -array.numpy() for name, array in arrays.items()}
        messages[0].content["extra"] = arrays_to_record(extra)
        return messages  # which share their content

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        for reply in replies:
            del reply.content["extra"]
        return super().aggregate_train(server_round, replies)


class NoConfig(FedAvg):
    """Sends nothing but the model."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        del messages[0].content["config"]
        return messages  # which share their content


def largest(strategy: Strategy, size: int, mods: list) -> Sizes:
    """Return the largest message of each kind: as objects, and as one protobuf."""
    grid = LocalGrid(app(mods), 2)
    model = np.random.default_rng(0).normal(size=size).astype(np.float32)
    strategy.start(grid, ArrayRecord([model]), num_rounds=ROUNDS)
    found: Sizes = {}
    for way, messages in (("down", grid.sent), ("up", grid.received)):
        for kind, content in messages:
            now = content_nbytes(content), recorddict_to_proto(content).ByteSize()
            before = found.get((kind, way), (0, 0))
            found[kind, way] = max(now[0], before[0]), max(now[1], before[1])
    return found


@cache
def plain(inner: type[FedAvg], size: int) -> Sizes:
    return largest(inner(), size, [])


def ours(name: str, inner: type[FedAvg], size: int) -> Sizes:
    options = {"lr": 0.1} if name == "FedComLoc" else {}
    strategy = OURS[name](inner(), **options)
    found = largest(strategy, size, [compression_mod])
    assert not any(record.dropped for record in strategy.history)
    return found


def too_large(own: Sizes, others: Sizes) -> dict[tuple[str, str], tuple[int, ...]]:
    over = {
        kind: tuple(a - b for a, b in zip(sizes, others[kind], strict=True))
        for kind, sizes in own.items()
    }
    return {kind: by for kind, by in over.items() if max(by) > ALLOWANCE}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OURS)
def test_no_message_is_larger_than_flowers_by_more_than_200_bytes(
    name: str, size: int
) -> None:
    assert too_large(ours(name, FedAvg, size), plain(FedAvg, size)) == {}


@pytest.mark.parametrize("inner", [TwoRecords, NoConfig])
@pytest.mark.parametrize("name", [n for n in OURS if n != "FedComLoc"])
def test_other_records_and_no_configuration_cost_no_more(
    name: str, inner: type[FedAvg]
) -> None:
    assert too_large(ours(name, inner, 2), plain(inner, 2)) == {}
