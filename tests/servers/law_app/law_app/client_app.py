"""A device that adds one to each element of its own tensor."""

from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod

from .pause import pause


def _place(context: Context) -> tuple[str, int]:
    return context.node_config["work-dir"], context.node_config["partition-id"]


def after_saving(msg, context, call_next):
    """Stand where the state is durable and the reply has not left."""
    reply = call_next(msg, context)
    folder, device = (
        context.node_config["work-dir"],
        context.node_config["partition-id"],
    )
    pause(folder, f"saved-{device}")
    return reply


app = ClientApp(mods=[after_saving, compression_mod])


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Add one."""
    folder, device = (
        context.node_config["work-dir"],
        context.node_config["partition-id"],
    )
    with (Path(folder) / f"trained-{device}").open("a") as log:
        log.write("1")
    pause(folder, f"training-{device}")
    arrays = {name: array.numpy() for name, array in msg.content["arrays"].items()}
    own = f"tensor-{device}"
    arrays[own] = arrays[own] + np.float32(1)
    content = RecordDict(
        {
            "arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()}),
            "metrics": MetricRecord({"num-examples": 1, "device": int(device)}),
        }
    )
    return Message(content, reply_to=msg)
