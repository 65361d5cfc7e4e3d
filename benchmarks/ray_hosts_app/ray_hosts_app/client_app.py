"""A device of `benchmarks/ray_hosts.py`: trains, and says where."""

from __future__ import annotations

import ray
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod
from flwr_caesar.clients.training import train as train_model
from flwr_caesar.tasks import load_partition
from flwr_caesar.tasks.models import build_model

DATA = {
    "name": "mnist5k",
    "batch_size": 16,
    "test_size": 1000,
    "partition": {"kind": "dirichlet", "alpha": 0.3},
}
MODEL = {"name": "mlp", "input_shape": [1, 28, 28], "num_classes": 10, "hidden": 200}

app = ClientApp(mods=[compression_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for ten steps, and tell the last number of this host's address."""
    partition = int(context.node_config["partition-id"])
    count = int(context.node_config["num-partitions"])
    model = build_model(MODEL, 0)
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    examples = load_partition(DATA, partition, count, 0)
    server_round = int(message.content.config_records["config"]["server-round"])
    train_model(
        model,
        examples.x,
        examples.y,
        batch_size=16,
        steps=10,
        lr=0.05,
        seed=server_round,
    )
    host = int(ray.util.get_node_ip_address().rpartition(".")[2])
    metrics = {"num-examples": len(examples), "partition": partition, "host": host}
    content = {
        "arrays": ArrayRecord(model.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)
