"""What a device does."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr_caesar.clients import compression_mod

from fedcomloc.dataset import load_data
from fedcomloc.model import build_model
from fedcomloc.model import evaluate as test_model
from fedcomloc.model import train as train_model

# The mod compresses and keeps control variates: below are plain arrays.
app = ClientApp(mods=[compression_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came, and return it."""
    config = context.run_config
    model = build_model(int(config["seed"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    examples = load_data(context)
    loss = train_model(
        model,
        examples,
        message,
        batch_size=int(config["batch-size"]),
        lr=float(config["learning-rate"]),
        seed=int(config["seed"]),
    )
    metrics = MetricRecord({"num-examples": len(examples), "loss": loss})
    arrays = ArrayRecord(model.state_dict())
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the model that came, on this device's data."""
    model = build_model(int(context.run_config["seed"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    examples = load_data(context)
    loss, accuracy = test_model(model, examples.x, examples.y)
    metrics = {"num-examples": len(examples), "loss": loss, "accuracy": accuracy}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
