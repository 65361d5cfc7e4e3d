"""A server that takes each device's tensor from that device."""

from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.strategies import TopK

from .pause import pause

app = ServerApp()


class Each(FedAvg):
    """Aggregates by taking ``tensor-i`` from device i."""

    folder = ""
    arrays = None

    def configure_train(self, server_round, arrays, config, grid):
        """Keep the model."""
        self.arrays = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        """Replace the tensors of those who replied."""
        model = dict(self.arrays.items())
        for reply in replies:
            content = reply.content
            own = f"tensor-{content['metrics']['device']}"
            model[own] = content["arrays"][own]
        pause(self.folder, "aggregated")
        return ArrayRecord(model), None


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, from the checkpoint if there is one."""
    folder = str(context.run_config["folder"])
    inner = Each(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    inner.folder = folder
    strategy = TopK(
        inner, density=0.3, deadline=20.0, checkpoint=f"{folder}/checkpoint"
    )
    zeros = {f"tensor-{i}": Array(np.zeros(2048, np.float32)) for i in range(3)}
    rounds = int(context.run_config["rounds"])
    strategy.start(grid, ArrayRecord(zeros), num_rounds=rounds)
    Path(folder, "done").write_text("done")
