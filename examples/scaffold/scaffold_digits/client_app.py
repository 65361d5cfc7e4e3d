"""What a device does."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr_caesar.clients import compression_mod

from scaffold_digits.task import build_model, load_file, load_partition, test
from scaffold_digits.task import train as train_model

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
    """Train the model that came, and say how the device's control variates moved."""
    model = build_model()
    sent = message.content["arrays"].to_torch_state_dict()
    model.load_state_dict(sent)
    common = message.content["control"].to_torch_state_dict()
    # Flower keeps the state of a device from round to round.
    own = context.state.get("control", message.content["control"])
    own = own.to_torch_state_dict()
    x, y = _data(context)
    lr = float(context.run_config["learning-rate"])
    steps, loss = train_model(
        model,
        x,
        y,
        epochs=int(context.run_config["local-epochs"]),
        lr=lr,
        correction={name: common[name] - own[name] for name in own},
    )
    delta = {
        name: (sent[name] - tensor) / (steps * lr) - common[name]
        for name, tensor in model.state_dict().items()
    }
    context.state["control"] = ArrayRecord({n: own[n] + delta[n] for n in own})
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "control-delta": ArrayRecord(delta),
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
