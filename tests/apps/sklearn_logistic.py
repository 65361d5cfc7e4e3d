"""Logistic regression as in Flower's quickstart-sklearn: 15 numbers in float64."""

import warnings

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from .app import App, partition_of, reply_to
from .data import iris


def model_with(arrays: ArrayRecord) -> LogisticRegression:
    model = LogisticRegression(max_iter=5, warm_start=True)
    model.classes_ = np.arange(3)
    model.coef_, model.intercept_ = (a.copy() for a in arrays.to_numpy_ndarrays())
    return model


def client_app(mods: list[Mod]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = model_with(msg.content["arrays"])
        index, count = partition_of(context)
        x, y = (part[index::count] for part in iris()[:2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        arrays = ArrayRecord([model.coef_, model.intercept_])
        return reply_to(msg, arrays, examples=len(y))

    return app


def initial_arrays(seed: int) -> ArrayRecord:
    return ArrayRecord([np.zeros((3, 4)), np.zeros(3)])


def accuracy(arrays: ArrayRecord) -> float:
    return float(model_with(arrays).score(*iris()[2:]))


APP = App(
    "logistic regression in scikit-learn (15 numbers, float64)",
    client_app,
    initial_arrays,
    accuracy,
    rounds=6,
    seeds=3,
    tested=30,
)
