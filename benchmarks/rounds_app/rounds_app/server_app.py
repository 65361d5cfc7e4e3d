"""Rounds of FedAvg, plain or wrapped, with the time of each."""

import itertools
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.codec.contract.layout import to_dtype
from flwr_caesar.strategies import Caesar, ErrorBounded, TopK
from flwr_caesar.transport import arrays_to_record

from .models import MODELS

app = ServerApp()
WRAPPERS = {
    "topk": lambda inner: TopK(inner, density=0.01),
    "topk-lattice": lambda inner: TopK(inner, density=0.01, downlink="lattice"),
    "caesar": Caesar,
    "error-bounded": ErrorBounded,
}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write their seconds and bytes."""
    config = context.run_config
    nodes = int(config["nodes"])
    arrays = MODELS[str(config["model"])]()
    dtype = to_dtype(str(config["dtype"]))
    arrays = {
        name: array.astype(dtype, copy=False) if array.dtype == np.float32 else array
        for name, array in arrays.items()
    }
    raw = sum(array.nbytes for array in arrays.values())
    initial = arrays_to_record(arrays)
    del arrays
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes
    )
    wrapper = WRAPPERS.get(str(config["strategy"]))
    if wrapper is not None:
        strategy = wrapper(strategy)
    ends: list[float] = []
    strategy.start(
        grid=grid,
        initial_arrays=initial,
        num_rounds=int(config["rounds"]),
        evaluate_fn=lambda _round, _arrays: ends.append(time.monotonic()),
    )
    result = {
        "seconds": [b - a for a, b in itertools.pairwise(ends)],
        "bytes_down": nodes * raw,
        "bytes_up": nodes * raw,
        "first_down": nodes * raw,
        "first_up": nodes * raw,
    }
    if wrapper is not None:
        last = strategy.history[-1]
        if last.dropped:
            raise RuntimeError(f"a reply was dropped: {last.dropped}")
        first = strategy.history[0]
        result |= {"bytes_down": last.bytes_down, "bytes_up": last.bytes_up}
        result |= {"first_down": first.bytes_down, "first_up": first.bytes_up}
    Path(config["result"]).write_text(json.dumps(result))
