"""The demo's server, which can be killed between aggregation and checkpoint."""

from flwr_caesar.reference_app.caesar_app import server_app as demo

from .pause import pause

build_strategy = demo.build_strategy


def build(spec, *, checkpoint, **options):
    """Build the strategy that was asked for, with a point to stop at."""
    strategy = build_strategy(spec, checkpoint=checkpoint, **options)
    inner = strategy.strategy
    aggregate = inner.aggregate_train

    def aggregate_and_pause(server_round, replies):
        result = aggregate(server_round, replies)
        pause(checkpoint.parents[1], "aggregated")
        return result

    inner.aggregate_train = aggregate_and_pause
    return strategy


demo.build_strategy = build
app = demo.app
