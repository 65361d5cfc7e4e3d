"""A convolutional network as in Flower's quickstart, tested on the devices too."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from torch import nn

from .app import App, Wrap, reply_to
from .data import digits
from .torch_app import accuracy_of, initial_of, load, train_loop

LR = 0.3


def build() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


accuracy = accuracy_of(build, digits())
accuracy_of_some = accuracy_of(build, digits(), examples=100)


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = load(build(), msg.content["arrays"])
        examples, loss = train_loop(model, digits(), msg, context, lr=LR)
        return reply_to(msg, model.state_dict(), examples=examples, train_loss=loss)

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        metrics = {
            "accuracy": accuracy_of_some(msg.content["arrays"]),
            "num-examples": 100,
        }
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)

    return app


def strategy(wrap: Wrap) -> Strategy:
    return wrap(FedAvg())


def evaluated_rounds(strategy: Strategy, result: Result) -> object:
    keys = {key for m in result.evaluate_metrics_clientapp.values() for key in m}
    return list(result.evaluate_metrics_clientapp), keys


APP = App(
    "CNN in torch (quickstart)",
    client_app,
    initial_of(build),
    accuracy,
    strategy,
    observe=evaluated_rounds,
    rounds=5,
    fedcomloc_lr=LR,
)
