"""Replies that Flower takes: other keys, no metrics, no examples, lists, an echo."""

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from .app import App, Wrap, fed_avg, partition_of, reply_to
from .numpy_app import (
    accuracy,
    arrays_of,
    examples_of,
    initial_arrays,
    record_of,
    trained,
)


def other_keys_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = trained(msg.content["model"], context)
        metrics = MetricRecord({"images": examples_of(context)})
        content = {"updated": record_of(arrays), "counts": metrics}
        return Message(RecordDict(content), reply_to=msg)

    return app


def other_keys(wrap: Wrap) -> Strategy:
    inner = FedAvg(
        fraction_evaluate=0.0,
        arrayrecord_key="model",
        configrecord_key="settings",
        weighted_by_key="images",
    )
    return wrap(inner)


def no_metrics_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = record_of(trained(msg.content["arrays"], context))
        return Message(RecordDict({"arrays": arrays}), reply_to=msg)

    return app


class Unweighted(FedAvg):
    """Averages all replies alike, and asks for no metrics."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        models = [
            arrays_of(reply.content["arrays"])
            for reply in replies
            if reply.has_content()
        ]
        if not models:
            return None, None
        means = {n: np.mean([m[n] for m in models], axis=0) for n in models[0]}
        return record_of(means), None


def unweighted(wrap: Wrap) -> Strategy:
    return wrap(Unweighted(fraction_evaluate=0.0))


def no_examples_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = trained(msg.content["arrays"], context)
        examples = examples_of(context) if partition_of(context)[0] else 0
        return reply_to(msg, arrays, examples=examples)

    return app


def echo_app(mods: list[Mod]) -> ClientApp:
    """Change the message's own content and send all of it back, with lists."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = trained(msg.content["arrays"], context)
        msg.content["arrays"] = record_of(arrays)
        metrics = {"num-examples": examples_of(context), "losses": [3.0, 2.0, 1.0]}
        msg.content["metrics"] = MetricRecord(metrics)
        return Message(msg.content, reply_to=msg)

    return app


def train_metrics(strategy: Strategy, result: Result) -> object:
    rounds = result.train_metrics_clientapp
    return {
        number: {key: np.round(value, 6).tolist() for key, value in metrics.items()}
        for number, metrics in rounds.items()
    }


APPS = [
    App(
        title,
        client_app,
        initial_arrays,
        accuracy,
        made_by,
        observe=train_metrics,
    )
    for title, client_app, made_by in (
        ("records by other keys", other_keys_app, other_keys),
        ("replies without MetricRecord, own aggregation", no_metrics_app, unweighted),
        ("0 examples on a node", no_examples_app, fed_avg),
        ("replies that echo the request, lists of metrics", echo_app, fed_avg),
    )
]
