"""Few of many nodes in a round, and devices that keep a state of the app's own."""

from flwr.app import Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from .app import App, Wrap, fed_avg, reply_to
from .numpy_app import (
    accuracy,
    arrays_of,
    examples_of,
    initial_arrays,
    plain_app,
    record_of,
    trained,
)


def some(wrap: Wrap) -> Strategy:
    return wrap(FedAvg(fraction_train=0.34, fraction_evaluate=0.0))


def stateful_app(mods: list[Mod]) -> ClientApp:
    """Keep a bias of each device's own, and count its rounds, in Context.state."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        done = int(context.state.get("counts", {"rounds": 0})["rounds"])
        if done:
            own = arrays_of(context.state["own"])
            if float(own["bias"].sum()) != context.state["counts"]["sum"]:
                raise ValueError("what this app kept was changed")
        arrays = trained(msg.content["arrays"], context)
        context.state["own"] = record_of({"bias": arrays["bias"]})
        context.state["counts"] = MetricRecord(
            {"rounds": done + 1, "sum": float(arrays["bias"].sum())}
        )
        return reply_to(
            msg, arrays, examples=examples_of(context), rounds=float(done + 1)
        )

    return app


def rounds_counted(strategy: Strategy, result: Result) -> object:
    return {n: m["rounds"] for n, m in result.train_metrics_clientapp.items()}


APPS = [
    App(
        "a third of the devices in a round",
        plain_app,
        initial_arrays,
        accuracy,
        some,
        rounds=6,
        nodes=9,
    ),
    App(
        "app with a state of its own in the Context",
        stateful_app,
        initial_arrays,
        accuracy,
        fed_avg,
        observe=rounds_counted,
    ),
]
