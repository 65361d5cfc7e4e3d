"""Trains with one strategy after another, and writes a line for each phase."""

import json

from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar import strategies
from flwr_caesar.faults.app import initial_model

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    nodes = int(config["nodes"])
    with open(config["output"], "w", buffering=1) as output:
        for segment in json.loads(config["segments"]):

            def tell(record, name=segment["strategy"]):
                line = {
                    "strategy": name,
                    "phase": record.phase,
                    "used": [d.node_id for d in record.devices if not d.dropped],
                    "dropped": record.dropped,
                }
                output.write(json.dumps(line) + "\n")

            inner = FedAvg(
                fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes
            )
            strategy = getattr(strategies, segment["strategy"])(
                inner,
                on_record=tell,
                guards=strategies.Guard(max_refusals=0),
                **segment["options"],
            )
            strategy.start(grid, initial_model(), num_rounds=segment["rounds"])
