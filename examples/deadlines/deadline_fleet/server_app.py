"""What the server does."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr_caesar.strategies import Caesar

from deadline_fleet.fleet import clock
from deadline_fleet.task import build_model, load_test, test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds, and say what it cost."""
    model = build_model()
    x, y = load_test()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        loss, accuracy = test(model, x, y)
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    config = context.run_config
    inner = FedAvg(
        fraction_train=float(config["fraction-train"]), fraction_evaluate=0.0
    )
    strategy = Caesar(
        inner,
        deadline=float(config["deadline"]),
        # On real devices the deadline is in seconds of the server's clock.
        clock=clock(int(config["simulated-devices"]))
        if config["simulated-devices"]
        else None,
        checkpoint=str(config["checkpoint"]) or None,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    print(strategy.report())
