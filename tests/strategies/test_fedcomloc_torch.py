"""FedComLoc with an app in torch that changed by one line."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg

torch = pytest.importorskip("torch")

from flwr_caesar.clients import compression_mod  # noqa: E402
from flwr_caesar.clients.fedcomloc import fedcomloc  # noqa: E402
from flwr_caesar.strategies import FedComLoc  # noqa: E402

from .local_grid import LocalGrid  # noqa: E402

LR = 0.05


def data(node: int):
    """Return examples of a linear task, and of one of two labels only."""
    rng = np.random.default_rng(node)
    x = rng.normal(size=(32, 6)).astype(np.float32)
    y = (x @ np.array([1, -2, 0, 1, 0.5, -1], np.float32) > 0).astype(np.float32)
    x[:, 0] += node
    return torch.from_numpy(x), torch.from_numpy(y)


def loss(model, node: int):
    x, y = data(node)
    logits = model(x)[:, 0]
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, y)


def app() -> ClientApp:
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = torch.nn.Linear(6, 1)
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        optimizer = fedcomloc(optimizer, model, msg)
        for _ in range(int(msg.content["config"]["local-steps"])):
            optimizer.zero_grad()
            loss(model, context.node_id).backward()
            optimizer.step()
        content = {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": 32}),
        }
        return Message(RecordDict(content), reply_to=msg)

    return app


def gradient_norm(arrays: ArrayRecord, nodes: int) -> float:
    model = torch.nn.Linear(6, 1)
    model.load_state_dict(arrays.to_torch_state_dict())
    total = sum(loss(model, node) for node in range(1, nodes + 1)) / nodes
    total.backward()
    return max(float(p.grad.abs().max()) for p in model.parameters())


def train(rounds: int, inner=FedAvg, **settings) -> ArrayRecord:
    torch.manual_seed(0)
    strategy = FedComLoc(
        inner(fraction_evaluate=0.0), lr=LR, p=0.1, steps="fixed", **settings
    )
    start = ArrayRecord(torch.nn.Linear(6, 1).state_dict())
    return strategy.start(LocalGrid(app(), 3), start, num_rounds=rounds).arrays


@pytest.mark.parametrize("inner", [FedAvg, FedAdam])
@pytest.mark.parametrize("variant", ["com", "local", "global"])
def test_every_variant_learns_inside_either(variant, inner) -> None:
    before = gradient_norm(train(1), 3)
    after = gradient_norm(train(10, inner, variant=variant, density=0.5), 3)
    assert after < before
