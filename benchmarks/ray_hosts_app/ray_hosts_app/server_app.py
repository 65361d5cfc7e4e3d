"""The server of `benchmarks/ray_hosts.py`: writes down who trained where."""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients.training import evaluate as test_model
from flwr_caesar.strategies import Caesar
from flwr_caesar.tasks import load_test
from flwr_caesar.tasks.models import build_model
from ray_hosts_app.client_app import DATA, MODEL

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train with every device in each round."""
    model = build_model(MODEL, 0)
    test = load_test(DATA)
    rounds: list[dict[int, int]] = []

    def note(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        told = [next(iter(reply.metric_records.values())) for reply in replies]
        rounds.append({int(one["partition"]): int(one["host"]) for one in told})
        return MetricRecord({})

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = test_model(model, test.x, test.y)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    strategy = Caesar(
        FedAvg(fraction_evaluate=0.0, train_metrics_aggr_fn=note), ask_labels=False
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    Path(str(context.run_config["placements"])).write_text(json.dumps(rounds))
