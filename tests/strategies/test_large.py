"""Models beyond a limit: refused in the first second, with the limit."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import CodecError
from flwr_caesar.codec.contract import vector
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import Caesar, ErrorBounded, TopK
from flwr_caesar.transport import arrays_to_record


@pytest.mark.parametrize("make", [Caesar, TopK, ErrorBounded])
def test_too_many_elements_are_refused_before_anyone_trains(make, monkeypatch):
    monkeypatch.setattr(vector, "MOST_ELEMENTS", 99)
    app = ClientApp(mods=[compression_mod])

    @app.train()
    def train(msg, context):
        raise AssertionError("it trains")

    grid = InlineGrid(app, 2)
    model = arrays_to_record({"w": np.ones(100, np.float32)})
    with pytest.raises(CodecError, match=r"100 elements .* at most 99"):
        make(FedAvg()).start(grid, model, num_rounds=1)
