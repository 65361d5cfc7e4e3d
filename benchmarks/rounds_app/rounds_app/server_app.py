"""Rounds of FedAvg, plain or wrapped, with the time of each."""

import itertools
import json
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.strategies import TopK

from .models import resnet18_arrays

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write their seconds and bytes."""
    config = context.run_config
    arrays = resnet18_arrays()
    raw = sum(array.nbytes for array in arrays.values())
    strategy = FedAvg(fraction_evaluate=0.0)
    if config["strategy"] == "topk":
        strategy = TopK(strategy, density=0.01)
    ends: list[float] = []
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({k: Array(v) for k, v in arrays.items()}),
        num_rounds=int(config["rounds"]),
        evaluate_fn=lambda _round, _arrays: ends.append(time.monotonic()),
    )
    result = {
        "seconds": [b - a for a, b in itertools.pairwise(ends)],
        "bytes_down": 2 * raw,
        "bytes_up": 2 * raw,
    }
    if config["strategy"] == "topk":
        last = strategy.history[-1]
        if last.dropped:
            raise RuntimeError(f"a reply was dropped: {last.dropped}")
        result |= {"bytes_down": last.bytes_down, "bytes_up": last.bytes_up}
    Path(config["result"]).write_text(json.dumps(result))
