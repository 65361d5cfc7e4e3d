"""What the server does."""

import random

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from caesar.dataset import load_test
from caesar.model import build_model
from caesar.model import evaluate as test_model
from caesar.strategy import build_strategy
from caesar.utils import keep, pretended_clock

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds, and say what it cost."""
    config = context.run_config
    seed = int(config["seed"])
    random.seed(seed)  # Flower draws the devices of a round from it
    model = build_model(seed)
    test = load_test()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = test_model(model, test.x, test.y)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    steps, batch = int(config["local-steps"]), int(config["max-batch"])
    strategy = build_strategy(
        str(config["strategy"]),
        FedAvg(fraction_train=float(config["fraction-train"]), fraction_evaluate=0.0),
        local_steps=steps,
        max_batch=batch,
        clock=pretended_clock(int(config["simulated-devices"]), seed),
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=int(config["num-server-rounds"]),
        train_config=ConfigRecord({"local-steps": steps, "batch-size": batch}),
        evaluate_fn=evaluate,
    )
    print(strategy.report())
    if config["results"]:
        keep(strategy, str(config["results"]), str(config["strategy"]), seed)
