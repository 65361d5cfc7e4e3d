"""An app for the fault harness: a small model, quick to train, seen at its work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import CompressionMod
from flwr_caesar.sync.sources import Sources
from flwr_caesar.transport import CONTROL_KEY, arrays_to_record, record_to_arrays

Arrays = Mapping[str, np.ndarray[Any, Any]]

# Weights enough for every codec to be lossy, and a tensor that some send exactly.
SHAPES = {"weight": (34, 32), "bias": (32,)}
SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}
_LABELS = 4


class FaultApp:
    """Devices that pull the model to targets of their own, with some noise.

    With ``local-steps`` and ``lr`` in the configuration they take so many steps of that
    size, corrected by the control variates that they are given.

    Parameters
    ----------
    seed : int
        Of targets and noise.
    sources : Sources, optional
        Of the mod.

    Attributes
    ----------
    client : ClientApp
        With the compression mod.
    """

    def __init__(self, seed: int, sources: Sources | None = None) -> None:
        self._seed = seed
        self._noise = np.random.default_rng([seed, 1])
        self._worked: tuple[Arrays, Arrays] | None = None
        mod = CompressionMod(
            initial=initial_model(),
            labels=_labels,
            sources=sources or Sources(),
        )
        self.client = ClientApp(mods=[mod])
        self.client.train()(self._train)
        self.client.evaluate()(_evaluate)

    def take_work(self) -> tuple[Arrays, Arrays] | None:
        """Return the models received and returned, if a device trained since asked."""
        worked, self._worked = self._worked, None
        return worked

    def target(self, number: int, name: str) -> np.ndarray[Any, Any]:
        """Return where a device pulls a tensor: each time to the same."""
        own = np.random.default_rng([self._seed, 2, number, SIZES[name]])
        return own.normal(size=SHAPES[name])

    def mean_target(self, devices: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the mean of the targets of the first devices: where the model goes."""
        numbers = range(devices)
        return {
            name: np.mean([self.target(n, name) for n in numbers], axis=0)
            for name in SIZES
        }

    def _train(self, msg: Message, context: Context) -> Message:
        received = record_to_arrays(msg.content.array_records["arrays"])
        control = msg.content.array_records.get(CONTROL_KEY)
        config = msg.content.config_records["config"]
        steps, lr = config.get("local-steps"), config.get("lr")
        number = _number(context)
        trained = {}
        for name, before in received.items():
            target = self.target(number, name)
            if isinstance(steps, int) and isinstance(lr, float):
                h = control[name].numpy() if control and name in control else 0.0
                after = _descend(before, target, h, steps, lr, 0.5 + number % 4)
            else:
                noise = self._noise.normal(size=before.shape)
                after = before + 0.4 * (target - before) + 0.1 * noise
            trained[name] = after.astype(np.float32)
        self._worked = received, trained
        metrics = MetricRecord({"num-examples": 10 + number % 3, "loss": 1.0})
        arrays = arrays_to_record(trained)
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        return Message(content, reply_to=msg)


def initial_model() -> ArrayRecord:
    """Return the model that every run starts from."""
    rng = np.random.default_rng(0)
    return arrays_to_record(
        {name: rng.normal(size=s).astype(np.float32) for name, s in SHAPES.items()}
    )


def _descend(
    x: np.ndarray[Any, Any],
    target: np.ndarray[Any, Any],
    control: Any,
    steps: int,
    lr: float,
    curvature: float,
) -> np.ndarray[Any, Any]:
    """Minimise ``curvature |x - target|^2 / 2`` by some steps."""
    for _ in range(steps):
        x = x - lr * (curvature * (x - target) - control)
    return x


def _evaluate(msg: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)


def _labels(context: Context) -> list[int]:
    number = _number(context)
    return [1 + (number * (label + 1)) % 7 for label in range(_LABELS)]


def _number(context: Context) -> int:
    number = context.node_config["partition-id"]
    assert isinstance(number, int)
    return number
