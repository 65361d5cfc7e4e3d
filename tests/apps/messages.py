"""Strategies that make a message of their own for each node, and look at replies."""

from collections.abc import Iterable

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from .app import App, Wrap, reply_to
from .numpy_app import (
    accuracy,
    arrays_of,
    examples_of,
    initial_arrays,
    record_of,
    trained,
)


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        lr = float(msg.content["config"]["lr"])
        arrays = trained(msg.content["arrays"], context, lr)
        return reply_to(msg, arrays, examples=examples_of(context))

    return app


class RatePerNode(FedAvg):
    """Builds the model's record anew for each node, and a rate for it."""

    heard: frozenset[int] = frozenset()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        for node_id in grid.get_node_ids():
            own = ConfigRecord({**config, "lr": 0.8 + 0.1 * (node_id % 4)})
            content = {"arrays": record_of(arrays_of(arrays)), "config": own}
            yield Message(
                RecordDict(content), dst_node_id=node_id, message_type="train"
            )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        self.heard |= {reply.metadata.src_node_id for reply in replies}
        return super().aggregate_train(server_round, replies)


class ModelPerNode(RatePerNode):
    """Sends each node a model that differs from the others'."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        for message in super().configure_train(server_round, arrays, config, grid):
            own = arrays_of(message.content["arrays"])
            noise = np.random.default_rng(message.metadata.dst_node_id)
            own["weight"] += 1e-3 * noise.normal(size=own["weight"].shape)
            message.content["arrays"] = record_of(own)
            yield message


def rates(wrap: Wrap) -> Strategy:
    return wrap(RatePerNode(fraction_evaluate=0.0))


def models(wrap: Wrap) -> Strategy:
    return wrap(ModelPerNode(fraction_evaluate=0.0))


def heard(strategy: Strategy, result: Result) -> object:
    return sorted(strategy.heard)


APPS = [
    App(
        "equal models built for each node",
        client_app,
        initial_arrays,
        accuracy,
        rates,
        observe=heard,
    ),
    App(
        "another model for each node",
        client_app,
        initial_arrays,
        accuracy,
        models,
        observe=heard,
        refused={"*": "differ"},
    ),
]
