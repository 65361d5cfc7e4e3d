"""What compression of a model's tensors cannot be done to, and says so at once."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic, Strategy

from .app import App, Wrap, fed_avg, reply_to
from .numpy_app import accuracy, examples_of, initial_arrays, plain_app, trained


def trees(seed: int) -> ArrayRecord:
    return ArrayRecord([np.frombuffer(b'{"learner": {}}', np.uint8)])


def no_score(arrays: ArrayRecord) -> float:
    return 0.0


def bagging(wrap: Wrap) -> Strategy:
    return wrap(FedXgbBagging(fraction_evaluate=0.0))


def cyclic(wrap: Wrap) -> Strategy:
    return wrap(FedXgbCyclic())


def legacy(wrap: Wrap) -> Strategy:
    return wrap(LegacyFedAvg())


def compiled_app(mods: list[Mod]) -> ClientApp:
    """Return the names that torch.compile gives, on a device only."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        arrays = trained(msg.content["arrays"], context)
        arrays = {f"_orig_mod.{name}": array for name, array in arrays.items()}
        return reply_to(msg, arrays, examples=examples_of(context))

    return app


def partial_app(mods: list[Mod]) -> ClientApp:
    """Return the weight and not the bias."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        weight = trained(msg.content["arrays"], context)["weight"]
        return reply_to(msg, {"weight": weight}, examples=examples_of(context))

    return app


APPS = [
    App(
        "FedXgbBagging: trees",
        plain_app,
        trees,
        no_score,
        bagging,
        refused={"*": "tree"},
    ),
    App(
        "FedXgbCyclic: trees", plain_app, trees, no_score, cyclic, refused={"*": "tree"}
    ),
    App(
        "strategy of flwr.server (legacy)",
        plain_app,
        initial_arrays,
        accuracy,
        legacy,
        refused={"*": "flwr.server"},
    ),
    App(
        "replies with other names (torch.compile)",
        compiled_app,
        initial_arrays,
        accuracy,
        fed_avg,
        refused={"*": "_orig_mod.*weight|weight.*_orig_mod"},
    ),
    App(
        "replies with some of the tensors",
        partial_app,
        initial_arrays,
        accuracy,
        fed_avg,
        refused={"*": "bias"},
    ),
]
