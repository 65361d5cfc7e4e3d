"""Metrics functions that look at the whole content of each reply."""

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from .app import App, Wrap, partition_of
from .numpy_app import accuracy, examples_of, initial_arrays, record_of, trained


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = record_of(trained(msg.content["arrays"], context))
        return Message(RecordDict({"arrays": arrays, **told(context)}), reply_to=msg)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        return Message(RecordDict(told(context)), reply_to=msg)

    return app


def told(context: Context) -> dict[str, MetricRecord | ConfigRecord]:
    index, _ = partition_of(context)
    metrics = {"num-examples": examples_of(context), "seconds": [1.0, 2.0 + index]}
    return {
        "metrics": MetricRecord(metrics),
        "device": ConfigRecord({"name": f"device {index}", "blob": b"\x00\xff"}),
    }


def seen_in(contents: list[RecordDict], key: str) -> MetricRecord:
    """Aggregate what plain Flower shows: arrays, configurations and metrics."""
    shapes = [
        a.shape for c in contents for r in c.array_records.values() for a in r.values()
    ]
    return MetricRecord(
        {
            "replies": len(contents),
            "elements": sum(s[0] for s in shapes),
            "dimensions": sum(len(s) for s in shapes),
            "names": sum(len(c["device"]["name"]) for c in contents),
            "slowest": max(c["metrics"]["seconds"][1] for c in contents),
            "weight": sum(c["metrics"][key] for c in contents),
        }
    )


def strategy(wrap: Wrap) -> Strategy:
    return wrap(FedAvg(train_metrics_aggr_fn=seen_in, evaluate_metrics_aggr_fn=seen_in))


def metrics(strategy: Strategy, result: Result) -> object:
    rounds = result.train_metrics_clientapp, result.evaluate_metrics_clientapp
    return [{number: dict(m) for number, m in phase.items()} for phase in rounds]


APP = App(
    "metrics functions that see content",
    client_app,
    initial_arrays,
    accuracy,
    strategy,
    observe=metrics,
    rounds=3,
)
