"""More than the model in a message: SCAFFOLD's control variates, and prototypes."""

from collections.abc import Iterable

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from .app import App, Wrap, partition_of, reply_to
from .data import digits
from .numpy_app import (
    accuracy,
    arrays_of,
    examples_of,
    initial_arrays,
    record_of,
    trained,
)

STEPS = 10


def digest_of(record: ArrayRecord) -> float:
    return float(sum(float(np.abs(a.numpy()).sum()) for a in record.values()))


def scaffold_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        sent = msg.content["control"]
        if digest_of(sent) != msg.content["config"]["control-digest"]:
            raise ValueError("the control variates are not those that were sent")
        common = arrays_of(sent)
        own = arrays_of(context.state.get("control", sent))
        start = arrays_of(msg.content["arrays"])
        end = trained(msg.content["arrays"], context)
        for name in end:
            end[name] = end[name] + (0.1 * STEPS * (own[name] - common[name]))
        moved = {
            name: own[name] - common[name] + (start[name] - end[name]) / STEPS
            for name in end
        }
        context.state["control"] = record_of(moved)
        delta = {name: moved[name] - own[name] for name in end}
        reply = reply_to(msg, end, examples=examples_of(context))
        reply.content["control-delta"] = record_of(delta)
        reply.content["sums"] = ConfigRecord({"digest": digest_of(record_of(delta))})
        return reply

    return app


class Scaffold(FedAvg):
    """Averages models, and moves the control variates by the mean of what moved."""

    control: ArrayRecord | None = None
    exact = True

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if self.control is None:
            zeros = {n: np.zeros_like(a) for n, a in arrays_of(arrays).items()}
            self.control = record_of(zeros)
        config["control-digest"] = digest_of(self.control)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content["control"] = self.control
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = [reply for reply in replies if reply.has_content()]
        control = arrays_of(self.control)
        for reply in replies:
            delta = reply.content.pop("control-delta")
            sums = reply.content.pop("sums")
            self.exact &= digest_of(delta) == sums["digest"]
            for name, array in arrays_of(delta).items():
                control[name] = control[name] + array / len(replies)
        self.control = record_of(control)
        return super().aggregate_train(server_round, replies)


def prototypes_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = trained(msg.content["arrays"], context)
        index, count = partition_of(context)
        x, y = (part[index::count] for part in digits()[:2])
        sums = np.stack([x[y == digit].sum(0, np.float64) for digit in range(10)])
        reply = reply_to(msg, arrays, examples=len(y))
        prototypes = {"sums": sums, "counts": np.bincount(y, minlength=10)}
        reply.content["prototypes"] = record_of(prototypes)
        return reply

    return app


class Prototypes(FedAvg):
    """Adds up what devices tell of each digit, beside averaging their models."""

    totals: tuple[float, int] = (0.0, 0)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = [reply for reply in replies if reply.has_content()]
        own = [arrays_of(reply.content.pop("prototypes")) for reply in replies]
        own.sort(key=lambda arrays: float(arrays["sums"].sum()))
        self.totals = (
            float(sum(arrays["sums"].sum() for arrays in own)),
            int(sum(arrays["counts"].sum() for arrays in own)),
        )
        return super().aggregate_train(server_round, replies)


def scaffold(wrap: Wrap) -> Strategy:
    return wrap(Scaffold(fraction_evaluate=0.0))


def prototypes(wrap: Wrap) -> Strategy:
    return wrap(Prototypes(fraction_evaluate=0.0))


def controls_exact(strategy: Strategy, result: Result) -> object:
    return strategy.exact, list(strategy.control)


def totals(strategy: Strategy, result: Result) -> object:
    return strategy.totals


APPS = [
    App(
        "SCAFFOLD: two ArrayRecords both ways",
        scaffold_app,
        initial_arrays,
        accuracy,
        scaffold,
        observe=controls_exact,
    ),
    App(
        "prototypes: a second ArrayRecord in replies",
        prototypes_app,
        initial_arrays,
        accuracy,
        prototypes,
        observe=totals,
    ),
]
