"""What the server does."""

import random

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedcomloc.dataset import load_test
from fedcomloc.model import build_model
from fedcomloc.model import evaluate as test_model
from fedcomloc.strategy import build_strategy
from fedcomloc.utils import keep

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

    probability = float(config["probability"])
    strategy = build_strategy(
        str(config["strategy"]),
        FedAvg(fraction_train=float(config["fraction-train"]), fraction_evaluate=0.0),
        lr=float(config["learning-rate"]),
        density=float(config["density"]),
        bits=int(config["bits"]),
        p=probability,
        seed=seed,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=int(config["num-server-rounds"]),
        # FedComLoc draws another number for each round; FedAvg takes this one.
        train_config=ConfigRecord({"local-steps": round(1 / probability)}),
        evaluate_fn=evaluate,
    )
    print(strategy.report())
    if config["results"]:
        name = str(config["strategy"])
        if name != "fedavg":
            name += f" density={config['density']} bits={config['bits']}"
        keep(strategy, str(config["results"]), name, seed)
