"""A device that adds noise to the model."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod

app = ClientApp(mods=[compression_mod])


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Return the model with Gaussian noise added."""
    rng = np.random.default_rng(context.node_config["partition-id"])
    arrays = {}
    for name, array in msg.content["arrays"].items():
        value = array.numpy()
        if value.dtype == np.float32:
            noise = rng.standard_normal(value.shape, np.float32)
            value = value + np.float32(1e-3) * noise
        arrays[name] = Array(np.asarray(value))
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content, reply_to=msg)
