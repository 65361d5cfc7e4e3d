"""What the server does."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr_caesar.export.tensorboard import TensorBoard
from flwr_caesar.strategies import Caesar

from tensorboard_digits.task import build_model, load_test, test

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

    inner = FedAvg(
        fraction_train=float(context.run_config["fraction-train"]),
        fraction_evaluate=0.0,
    )
    # `with` closes the files, also of a run that fails.
    with TensorBoard(str(context.run_config["log-folder"])) as board:
        strategy = Caesar(inner, on_record=board)
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=int(context.run_config["num-server-rounds"]),
            evaluate_fn=evaluate,
        )
    print(strategy.report())
