"""What the server does."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from flwr_caesar.strategies import Caesar

from private_digits.task import build_model, load_test, test

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

    # It clips each update, which it sees decoded, and adds noise to their mean.
    private = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(fraction_evaluate=0.0),
        noise_multiplier=float(context.run_config["noise-multiplier"]),
        clipping_norm=float(context.run_config["clipping-norm"]),
        num_sampled_clients=int(context.run_config["num-sampled-clients"]),
    )
    # Compression is outermost: what it publishes already has the noise.
    strategy = Caesar(private)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    print(strategy.report())
