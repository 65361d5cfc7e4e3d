"""What a device does."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr_caesar.clients import compression_mod

from deadline_fleet.task import build_model, load_file, load_partition, test
from deadline_fleet.task import train as train_model

# All there is of compression on the device: below are plain arrays.
app = ClientApp(mods=[compression_mod])


def _data(context: Context):
    """Return a device's images and labels: its share in a simulation, else its file."""
    config = context.node_config
    if "partition-id" in config:
        return load_partition(
            int(config["partition-id"]), int(config["num-partitions"])
        )
    return load_file(str(config["data-path"]))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came, on this device's data, and return it."""
    model = build_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = _data(context)
    loss = train_model(
        model,
        x,
        y,
        epochs=int(context.run_config["local-epochs"]),
        lr=float(context.run_config["learning-rate"]),
    )
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(x), "loss": loss}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the model that came, on this device's data."""
    model = build_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = _data(context)
    loss, accuracy = test(model, x, y)
    metrics = {"num-examples": len(x), "loss": loss, "accuracy": accuracy}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
