"""Query messages, and a ServerApp that drives the grid without a strategy."""

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
from flwr.serverapp.strategy import Result, Strategy

from .app import App, Score, partition_of, start
from .numpy_app import (
    accuracy,
    arrays_of,
    examples_of,
    initial_arrays,
    plain_app,
    record_of,
)


def client_app(mods: list[Mod]) -> ClientApp:
    app = plain_app(mods)

    @app.query()
    def query(msg: Message, context: Context) -> Message:
        metrics = {"examples": examples_of(context), "index": partition_of(context)[0]}
        return Message(RecordDict({"about": MetricRecord(metrics)}), reply_to=msg)

    @app.train("warm_up")
    def warm_up(msg: Message, context: Context) -> Message:
        return Message(RecordDict({"ready": ConfigRecord({"yes": True})}), reply_to=msg)

    return app


def messages(grid: Grid, content: RecordDict, message_type: str) -> list[Message]:
    return [
        Message(content, dst_node_id=node_id, message_type=message_type)
        for node_id in grid.get_node_ids()
    ]


def ask_then_train(
    grid: Grid, strategy: Strategy, initial: ArrayRecord, rounds: int, score: Score
) -> Result:
    empty = RecordDict({"config": ConfigRecord({"why": "statistics"})})
    for kind in ("query", "train.warm_up"):
        replies = grid.send_and_receive(messages(grid, empty, kind))
        assert all(reply.has_content() for reply in replies)
    result = start(grid, strategy, initial, rounds, score)
    replies = grid.send_and_receive(messages(grid, empty, "query"))
    told = [dict(reply.content["about"]) for reply in replies]
    result.train_metrics_clientapp[0] = MetricRecord(
        {"examples": sum(t["examples"] for t in told), "devices": len(told)}
    )
    return result


def drive(
    grid: Grid, strategy: Strategy, initial: ArrayRecord, rounds: int, score: Score
) -> Result:
    """Average by hand; the strategy is not used."""
    result, arrays = Result(), initial
    result.evaluate_metrics_serverapp[0] = MetricRecord({"score": score(arrays)})
    for number in range(1, rounds + 1):
        content = RecordDict({"arrays": arrays, "config": ConfigRecord()})
        replies = list(grid.send_and_receive(messages(grid, content, "train")))
        models = [arrays_of(reply.content["arrays"]) for reply in replies]
        mean = {n: sum(m[n] for m in models) / len(models) for n in models[0]}
        arrays = record_of(mean)
        result.evaluate_metrics_serverapp[number] = MetricRecord(
            {"score": score(arrays)}
        )
    result.arrays = arrays
    return result


def asked(strategy: Strategy, result: Result) -> object:
    return dict(result.train_metrics_clientapp.get(0, {}))


APPS = [
    App(
        "queries before and after training",
        client_app,
        initial_arrays,
        accuracy,
        serve=ask_then_train,
        observe=asked,
    ),
    App(
        "grid driven by hand, no strategy",
        client_app,
        initial_arrays,
        accuracy,
        serve=drive,
        rounds=3,
    ),
]
