"""One line of a training loop makes its steps FedComLoc's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

torch = pytest.importorskip("torch")

from flwr_caesar.clients.compressors import compressor  # noqa: E402
from flwr_caesar.clients.fedcomloc import corrects, fedcomloc  # noqa: E402

TOPK = {"id": "topk", "density": 0.25, "exact_below": 1}


def message(control: dict[str, np.ndarray] | None, **config: object) -> Message:
    records = {"config": ConfigRecord(config)}
    if control is not None:
        rows = {name: Array(array) for name, array in control.items()}
        records["control"] = ArrayRecord(rows)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    return Message(RecordDict(records), dst_node_id=1, message_type="train")


def step(msg: Message, lr: float = 0.5, momentum: float = 0.0) -> tuple:
    """Return a model's weight before and after one step, and its gradient at x."""
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    optimizer = fedcomloc(optimizer, model, msg)
    before = model.weight.detach().clone()
    loss = model(torch.ones(1, 8)).square().sum() / 2
    loss.backward()
    optimizer.step()
    return before, model.weight.detach()


def gradient(weight):
    return torch.full((1, 8), float(weight.sum()))


def test_the_control_variates_of_the_message_correct_the_step() -> None:
    h = np.arange(8, dtype=np.float32).reshape(1, 8)
    before, after = step(message({"weight": h}, lr=0.5))
    expected = before - 0.5 * (gradient(before) - torch.from_numpy(h))
    torch.testing.assert_close(after, expected)


def test_the_gradient_is_taken_where_the_message_says() -> None:
    for control in (None, {}):
        before, after = step(message(control, lr=0.5, compress=json.dumps(TOPK)))
        at = compressor(TOPK)(before)
        assert (at == 0).sum() == 6
        torch.testing.assert_close(after, before - 0.5 * gradient(at))


def test_another_strategys_message_leaves_the_optimiser_alone() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    assert fedcomloc(optimizer, torch.nn.Linear(1, 1), message(None)) is optimizer
    assert not optimizer._optimizer_step_pre_hooks
    assert not corrects(message(None))
    assert corrects(message({}))
    assert corrects(message(None, compress=json.dumps(TOPK)))


def test_another_step_size_than_the_servers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lr 0\.5, the server's FedComLoc 0\.1"):
        step(message({}, lr=0.1))


def test_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum"):
        step(message({}, lr=0.5), momentum=0.5)
