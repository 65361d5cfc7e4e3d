"""LoRA adapters in bfloat16, in and out, under every strategy."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from flwr_caesar.clients import compression_mod
from flwr_caesar.clients.torch_records import record_to_state, state_to_record
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import (
    Caesar,
    CorrelationAware,
    ErrorBounded,
    MagnitudePruning,
    TopK,
    Uncompressed,
)

WIDTH, RANK = 96, 16
# What devices are sent is what the server has, rounded to the type.
EXACT = {
    "TopK": TopK,
    "ErrorBounded": ErrorBounded,
    "CorrelationAware": CorrelationAware,
}
# What devices are sent is on a lattice beside it.
NEAR = {
    "TopK, lattice": lambda inner: TopK(inner, downlink="lattice"),
    "Caesar": Caesar,
}
OTHERS = {
    "Uncompressed": Uncompressed,
    "MagnitudePruning": MagnitudePruning,
    "Caesar, paper": lambda inner: Caesar(inner, codec="paper"),
}


class Adapted(nn.Module):
    """A frozen layer with an adapter, which alone is trained and sent."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(WIDTH, WIDTH, dtype=dtype).requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(RANK, WIDTH, dtype=dtype) / 10)
        self.lora_b = nn.Parameter(torch.zeros(WIDTH, RANK, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T

    def adapters(self) -> dict[str, torch.Tensor]:
        return {"lora_a": self.lora_a, "lora_b": self.lora_b}


class Devices:
    """An app in one type, and what it was given."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.given: list[dict[str, torch.Tensor]] = []
        self.app = ClientApp(mods=[compression_mod])
        self.app.train()(self.train)

    def train(self, msg: Message, context: Context) -> Message:
        model = Adapted(self.dtype)
        given = record_to_state(msg.content["arrays"])
        self.given.append(given)
        model.load_state_dict(given, strict=False)
        optimizer = torch.optim.AdamW(model.adapters().values(), lr=1e-3)
        torch.manual_seed(context.node_id)
        for _ in range(3):
            x = torch.randn(64, WIDTH).to(self.dtype)
            optimizer.zero_grad()
            (model(x) - x).square().mean().backward()
            optimizer.step()
        content = {
            "arrays": state_to_record(model.adapters()),
            "metrics": MetricRecord({"num-examples": 64}),
        }
        return Message(RecordDict(content), reply_to=msg)


def train(make, dtype: torch.dtype = torch.bfloat16):
    random.seed(0)
    devices = Devices(dtype)
    seen: list[ArrayRecord] = []
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    strategy = make(inner)
    result = strategy.start(
        InlineGrid(devices.app, 2),
        state_to_record(Adapted(dtype).adapters()),
        num_rounds=3,
        evaluate_fn=lambda _, arrays: seen.append(arrays),
    )
    assert not any(record.dropped for record in strategy.history)
    return strategy, devices, [*seen, result.arrays]


@pytest.mark.parametrize("name", [*EXACT, *NEAR, *OTHERS])
def test_models_are_of_bfloat16_everywhere(name: str) -> None:
    _, devices, models = train((EXACT | NEAR | OTHERS)[name])
    for record in models:
        for tensor in record.to_torch_state_dict().values():
            assert torch.equal(tensor, tensor.bfloat16().float())
    if name not in OTHERS:
        assert all(t.dtype is torch.bfloat16 for t in devices.given[-1].values())
    # Two devices a round; `evaluate_fn` is first given the initial model.
    for i, given in enumerate(devices.given if name not in OTHERS else ()):
        model = models[i // 2].to_torch_state_dict()
        for key, tensor in given.items():
            off = (model[key] - tensor.float()).square().sum()
            most = 0 if name in EXACT else 2e-3 * model[key].square().sum()
            assert off <= most
    first, last = (record["lora_b"].numpy() for record in (models[0], models[-1]))
    assert (first != last).any()


def test_the_exact_download_takes_less_than_in_float32() -> None:
    down = {
        dtype: sum(record.bytes_down for record in train(TopK, dtype)[0].history)
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert down[torch.bfloat16] < 0.6 * down[torch.float32]


@pytest.mark.parametrize("name", NEAR)
def test_a_lattice_takes_no_more_than_in_float32(name: str) -> None:
    down = {}
    for dtype in (torch.float32, torch.bfloat16):
        history = train(NEAR[name], dtype)[0].history
        down[dtype] = [record.bytes_down for record in history]
    few = 2 * len(b',"halves":1')  # in each of two devices' frames
    wide, own = down[torch.float32], down[torch.bfloat16]
    assert own[0] <= wide[0] + few
    # Its rounding leaves less for the signs of rows, which is much of so small a model.
    assert sum(own[1:]) <= 1.04 * sum(wide[1:]) + few * len(wide)


def test_what_is_below_the_precision_adds_up() -> None:
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def one_of_two_moves(msg: Message, context: Context) -> Message:
        state = record_to_state(msg.content["arrays"])
        if context.node_id == 1:
            bits = state["w"].view(torch.int16)
            bits += 1
        content = {
            "arrays": state_to_record(state),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=msg)

    random.seed(0)
    strategy = TopK(FedAvg(fraction_evaluate=0.0), density=1.0, values="float32")
    initial = state_to_record({"w": torch.ones(2048, dtype=torch.bfloat16)})
    result = strategy.start(InlineGrid(app, 2), initial, num_rounds=6)
    step = 2.0**-7
    assert (result.arrays["w"].numpy() == np.float32(1 + 3 * step)).all()
