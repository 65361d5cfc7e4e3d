"""What devices do in an evaluation: return the model, fail, or have no examples."""

from collections.abc import Callable
from functools import partial

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from .app import App, Wrap, partition_of
from .numpy_app import accuracy, initial_arrays, plain_app

Evaluate = Callable[[Message, Context], Message]


def metrics_of(context: Context, examples: int) -> MetricRecord:
    """Return metrics that do not depend on the model."""
    index, _ = partition_of(context)
    return MetricRecord({"loss": 1.0 + index, "num-examples": examples})


def with_arrays(msg: Message, context: Context) -> Message:
    """Return the model too, as Flower's quickstart for Hugging Face does."""
    content = {"arrays": msg.content["arrays"], "metrics": metrics_of(context, 5)}
    return Message(RecordDict(content), reply_to=msg)


def without_examples(msg: Message, context: Context) -> Message:
    """Count no example on the first node, whose part has none to test."""
    examples = 0 if partition_of(context)[0] == 0 else 5
    return Message(RecordDict({"m": metrics_of(context, examples)}), reply_to=msg)


def failing(msg: Message, context: Context) -> Message:
    """Raise on the first node."""
    if partition_of(context)[0] == 0:
        raise RuntimeError("no test data here")
    return Message(RecordDict({"m": metrics_of(context, 5)}), reply_to=msg)


def strategy(wrap: Wrap) -> Strategy:
    return wrap(FedAvg())


def only_evaluating(wrap: Wrap) -> Strategy:
    return wrap(FedAvg(fraction_train=0.0, min_train_nodes=0))


def evaluations(strategy: Strategy, result: Result) -> object:
    rounds = result.evaluate_metrics_clientapp
    return {number: round(m["loss"], 6) for number, m in rounds.items()}


def app_of(title: str, evaluate: Evaluate, made_by: object = strategy) -> App:
    return App(
        title,
        partial(plain_app, evaluate=evaluate),
        initial_arrays,
        accuracy,
        made_by,
        observe=evaluations,
        rounds=3,
        fails=evaluate is failing,
    )


APPS = [
    app_of("evaluation returns arrays", with_arrays),
    app_of("evaluation with 0 examples on a node", without_examples),
    app_of("evaluation raises on a node", failing),
    app_of("evaluation without training", with_arrays, only_evaluating),
]
