"""A device that adds noise to the model."""

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec.contract.layout import FLOAT_DTYPES
from flwr_caesar.transport import arrays_to_record, record_to_arrays

app = ClientApp(mods=[compression_mod])


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Return the model with Gaussian noise added."""
    rng = np.random.default_rng(context.node_config["partition-id"])
    arrays = {}
    for name, value in record_to_arrays(msg.content["arrays"]).items():
        if value.dtype.name in FLOAT_DTYPES:
            noise = rng.standard_normal(value.shape, np.float32)
            noise *= np.float32(1e-3)
            noise += value.astype(np.float32, copy=False)
            value = noise.astype(value.dtype, copy=False)
        arrays[name] = value
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": arrays_to_record(arrays), "metrics": metrics})
    return Message(content, reply_to=msg)
