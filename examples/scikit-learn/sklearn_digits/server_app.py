"""What the server does."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr_caesar.strategies import Caesar

from sklearn_digits.task import initial_arrays, load_test, model_with

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds, and say what it cost."""
    x, y = load_test()

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = model_with(arrays.to_numpy_ndarrays())
        return MetricRecord({"accuracy": float(model.score(x, y))})

    # All there is of compression on the server: around any strategy.
    strategy = Caesar(FedAvg(fraction_evaluate=0.0))
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(initial_arrays()),
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    print(strategy.report())
