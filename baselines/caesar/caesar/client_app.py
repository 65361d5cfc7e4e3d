"""What a device does."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr_caesar.clients import CompressionMod

from caesar.dataset import label_counts, load_data
from caesar.model import build_model
from caesar.model import evaluate as test_model
from caesar.model import train as train_model

# The mod compresses: below are plain arrays. Label counts make Caesar's importance.
app = ClientApp(mods=[CompressionMod(labels=label_counts)])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that came for as many steps, of as large batches, as asked."""
    model = build_model(int(context.run_config["seed"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    config = message.content["config"]
    examples = load_data(context)
    result = train_model(
        model,
        examples.x,
        examples.y,
        steps=int(config["local-steps"]),
        batch_size=int(config["batch-size"]),
        lr=float(context.run_config["learning-rate"]),
        seed=int(context.run_config["seed"]) + int(config["server-round"]),
    )
    metrics = MetricRecord({"num-examples": len(examples), "loss": result["loss"]})
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
