"""What a device does."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr_caesar.clients import compression_mod

from sklearn_digits.task import CLASSES, load_file, load_partition, model_with

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
    model = model_with(
        message.content["arrays"].to_numpy_ndarrays(),
        lr=float(context.run_config["learning-rate"]),
    )
    x, y = _data(context)
    for _ in range(int(context.run_config["local-epochs"])):
        model.partial_fit(x, y, classes=CLASSES)
    content = RecordDict(
        {
            "arrays": ArrayRecord([model.coef_, model.intercept_]),
            "metrics": MetricRecord({"num-examples": len(x)}),
        }
    )
    return Message(content, reply_to=message)
