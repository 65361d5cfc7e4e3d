"""FedComLoc, arXiv:2403.09904, in its three variants, and Scaffnew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import FedComLoc

from .federation import (
    LR,
    Scheduled,
    assert_same,
    curvature,
    largest,
    models_of,
    start,
    target,
    trained,
)

P, NODES, ROUNDS = 0.25, 3, 6


def reference(variant: str, density: float, steps: list[int]) -> list[dict[str, Any]]:
    def c(x: Any) -> Any:
        return largest(x, math.ceil(density * x.size))

    x = {name: array.astype(np.float64) for name, array in start().items()}
    h = [{name: np.zeros(array.shape) for name, array in x.items()} for _ in range(3)]
    models = []
    for count in steps:
        ends = []
        for node in range(NODES):
            at = c if variant == "local" else np.asarray
            end = trained(x, node + 1, count, h[node], at)
            if variant == "com":
                end = {name: c(array) for name, array in end.items()}
            ends.append(end)
        x = {name: np.mean([end[name] for end in ends], axis=0) for name in x}
        if variant == "global":
            x = {name: c(array) for name, array in x.items()}
        for node in range(NODES):
            for name in x:
                h[node][name] = h[node][name] + P / LR * (x[name] - ends[node][name])
        models.append(x)
    return models


@pytest.mark.parametrize(
    ("variant", "density"), [("com", 1.0), ("com", 0.3), ("global", 0.3)]
)
def test_a_federation_is_the_papers_step_by_step(variant: str, density: float) -> None:
    published = {"feedback": 0.0} if variant == "global" else {}
    strategy = FedComLoc(
        Scheduled([[1, 2, 3]] * ROUNDS),
        lr=LR,
        variant=variant,
        density=density,
        values="float32",
        exact_below=0,
        p=P,
        **published,
    )
    found = models_of(strategy, NODES, ROUNDS)
    steps = [strategy.local_steps(number) for number in range(1, ROUNDS + 1)]
    assert len(set(steps)) > 1
    assert strategy.resets == 0
    assert_same(found, reference(variant, density, steps))


def torch_app() -> ClientApp:
    """Return the same devices in torch, with the one line that FedComLoc changes."""
    torch = pytest.importorskip("torch")
    from flwr_caesar.clients.fedcomloc import fedcomloc

    class Quadratic(torch.nn.Module):
        def __init__(self, state: Any, node: int) -> None:
            super().__init__()
            for name, array in state.items():
                self.register_parameter(name, torch.nn.Parameter(array))
            goals = target(node).items()
            self.goals = {name: torch.from_numpy(array) for name, array in goals}
            self.curvature = curvature(node)

        def forward(self) -> Any:
            apart = [
                ((p - self.goals[n]) ** 2).sum() for n, p in self.named_parameters()
            ]
            return self.curvature / 2 * sum(apart)

    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        state = msg.content["arrays"].to_torch_state_dict()
        model = Quadratic(state, context.node_id)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        optimizer = fedcomloc(optimizer, model, msg)
        for _ in range(int(msg.content["config"]["local-steps"])):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()
        metrics = MetricRecord({"num-examples": 1})
        content = {"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}
        return Message(RecordDict(content), reply_to=msg)

    return app


def test_local_takes_gradients_at_the_compressed_model_step_by_step() -> None:
    app = torch_app()
    strategy = FedComLoc(
        Scheduled([[1, 2, 3]] * ROUNDS),
        lr=LR,
        variant="local",
        density=0.3,
        values="float32",
        exact_below=0,
        p=P,
    )
    found = models_of(strategy, NODES, ROUNDS, app=app)
    steps = [strategy.local_steps(number) for number in range(1, ROUNDS + 1)]
    assert_same(found, reference("local", 0.3, steps))
