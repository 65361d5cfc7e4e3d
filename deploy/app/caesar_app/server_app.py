"""What the server does: lead the rounds, test the model, write down what it cost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from flwr_caesar.clients.torch_records import record_to_state, state_to_record
from flwr_caesar.clients.training import evaluate as test_model
from flwr_caesar.runner.folder import RunFolder
from flwr_caesar.runner.registry import build_clock, build_strategy
from flwr_caesar.runner.spec import load_spec, weight_format
from flwr_caesar.tasks import load_test
from flwr_caesar.tasks.models import (
    build_model,
    exchanged_state,
    load_exchanged,
    training_flops,
)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for the configured number of rounds."""
    spec = load_spec(context.run_config)
    with RunFolder.open(Path(str(context.run_config["output-dir"])), spec) as folder:
        _train(grid, spec, folder)


def _train(grid: Grid, spec: dict[str, Any], folder: RunFolder) -> None:
    random.seed(spec["seed"])  # Flower draws the devices of a round from it
    model = build_model(spec["model"], spec["seed"])
    test = load_test(spec["data"])

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        load_exchanged(model, record_to_state(arrays))
        loss, accuracy = test_model(model, test.x, test.y, **weight_format(spec))
        folder.on_evaluation(server_round, accuracy=accuracy, loss=loss)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    # Compression is the strategy around FedAvg; the rest is any Flower app.
    strategy = build_strategy(
        spec,
        on_record=folder.on_record,
        on_progress=folder.on_progress,
        checkpoint=folder.checkpoint,
        clock=build_clock(spec, lambda: training_flops(model, test.x[:1])),
    )
    initial = state_to_record(exchanged_state(model))
    result = strategy.start(
        grid=grid,
        initial_arrays=initial,
        num_rounds=spec["rounds"],
        train_config=_train_config(spec),
        evaluate_fn=evaluate,
    )
    final = result.arrays if len(result.arrays) else initial
    folder.finish({name: array.numpy() for name, array in final.items()})


def _train_config(spec: dict[str, Any]) -> ConfigRecord:
    """Return what every device is asked to do, whatever the strategy."""
    steps = spec["train"]["steps"]
    if steps is None:
        return ConfigRecord({"local-epochs": spec["train"]["epochs"]})
    return ConfigRecord(
        {"local-steps": steps, "batch-size": spec["data"]["batch_size"]}
    )
