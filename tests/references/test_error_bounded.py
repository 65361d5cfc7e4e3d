"""The error-bounded predictors, arXiv:2511.05770: what an update is taken for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import ErrorBounded

from .federation import Model, Scheduled, models_of

REL, RATE, TAU, AGREES, ROUNDS = 0.05, 0.07, 0.5, 0.7, 5
SHAPE = (12, 10, 3, 3)
NAMES = ("first", "second", "kernels")


def update(node: int, server_round: int) -> Model:
    """Return updates whose magnitudes last, with signs of three kinds."""
    lasting = np.random.default_rng(node)
    rng = np.random.default_rng([node, server_round])
    size = np.exp(lasting.normal(0, 1, SHAPE))
    sign = lasting.choice([-1, 1], SHAPE)
    own = {
        "first": size * sign * (-1) ** server_round,
        "second": size * sign,
        "kernels": size * rng.choice([-1, 1], (12, 10, 1, 1)),
    }
    noise = 1 + rng.normal(0, 0.1, SHAPE)
    return {
        name: (array * noise / 64).astype(np.float32) for name, array in own.items()
    }


def app() -> ClientApp:
    made = ClientApp(mods=[compression_mod])

    @made.train()
    def train(msg: Message, context: Context) -> Message:
        number = int(msg.content.config_records["config"]["server-round"])
        moved = update(context.node_id, number)
        arrays = {
            name: Array(array.numpy() + moved[name])
            for name, array in msg.content.array_records["arrays"].items()
        }
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        return Message(content, reply_to=msg)

    return made


def signs(x: Any, before: Any, bound: float, oscillates: bool) -> Any:
    """Return the sign of each element that the paper predicts; 0 for none."""
    far = np.abs(x) > bound
    share = np.mean(np.sign(x[far]) == np.sign(before[far]))
    if oscillates and max(share, 1 - share) >= AGREES:
        return np.copysign(1, before) * (1 if share >= 0.5 else -1)
    kernels = x.reshape(*x.shape[:2], -1)
    plus, minus = (kernels > 0).sum(axis=2), (kernels < 0).sum(axis=2)
    most = np.maximum(plus, minus) + (kernels == 0).sum(axis=2)
    consistent = 2 * (most / kernels.shape[2] - 0.5) >= TAU
    majority = np.where(plus >= minus, 1, -1)
    return np.broadcast_to((consistent * majority)[:, :, None, None], x.shape)


@pytest.mark.parametrize("predictor", ["paper", "paper_kernels"])
def test_a_federation_is_predicted_as_the_paper_says(predictor: str) -> None:
    """What the server decodes is the prediction and whole steps of the quantiser."""
    schedule = [[1, 2], [1, 2], [1], [1, 2], [1, 2]]
    strategy = ErrorBounded(Scheduled(schedule), rel=REL, predictor=predictor)
    before: dict[int, Model] = {}
    scores: dict[int, Model] = {}
    begun = {name: np.zeros(SHAPE, np.float32) for name in NAMES}
    kinds: set[str] = set()
    number = 0

    def check(model: Model) -> None:
        nonlocal number
        number += 1
        memory = strategy._exchange.memory._states
        last = {row: state.arrays for row, state in memory.items()}
        for node in schedule[number - 1]:
            true = update(node, number)
            found = next(
                {name: arrays[f"previous/{name}"] for name in NAMES}
                for arrays in last.values()
                if all(
                    np.abs(arrays[f"previous/{n}"] - true[n]).max()
                    <= REL * np.ptp(true[n]) * 1.001
                    for n in NAMES
                )
            )
            for name in NAMES:
                x, bound = true[name].astype(np.float64), REL * np.ptp(true[name])
                prediction = np.zeros(SHAPE)
                if node in before:
                    old = before[node][name].astype(np.float64)
                    z = (np.abs(old) - np.abs(old).mean()) / np.abs(old).std()
                    m = scores.setdefault(node, {}).get(name, 0)
                    m = (1 - RATE) * m + RATE * z
                    scores[node][name] = m
                    sign = signs(x, old, bound, predictor == "paper")
                    kinds.add(f"{name} {len(np.unique(sign))}")
                    size = np.abs(m * np.abs(x).std() + np.abs(x).mean())
                    prediction = sign * size
                steps = (found[name] - prediction) / (2 * bound * (1 - 2**-12))
                np.testing.assert_allclose(steps, np.rint(steps), atol=0.002)
            before[node] = found

    models_of(strategy, 2, ROUNDS, app=app(), after=check, first=begun)
    oscillating = {"first 2", "second 2", "kernels 2"}
    assert kinds == oscillating if predictor == "paper" else "first 3" in kinds
