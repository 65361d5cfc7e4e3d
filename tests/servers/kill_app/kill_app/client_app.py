"""A device that keeps a journal of what it computed and what it sent.

What it computes are steps at random, without torch: each message is a process that
would import it, and the laws are of updates, whatever they are.

The journal's names: ``computed-DEVICE-KEY`` before the state is written, and
``sent-DEVICE-KEY-UPLOAD`` after it and before the reply leaves.
"""

import io
import time
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod
from flwr_caesar.transport import (
    DeviceReport,
    arrays_to_record,
    record_to_arrays,
    record_to_frame,
)

from .pause import pause, write_whole

KEY = str(time.time_ns())  # each message is a process


def _place(context):
    config = context.node_config
    return Path(config["work-dir"]), config["partition-id"]


def what_was_sent(msg, context, call_next):
    """Stand where the state is durable and the reply has not left."""
    reply = call_next(msg, context)
    if not reply.has_content() or not reply.content.array_records:
        return reply
    folder, device = _place(context)
    upload = DeviceReport.read(reply.content)[1].upload_id
    (record,) = reply.content.array_records.values()
    name = f"sent-{device}-{KEY}-{upload:016x}"
    write_whole(folder / name, record_to_frame(record))
    pause(folder, f"saved-{device}")
    return reply


def what_was_computed(msg, context, call_next):
    """Stand before the training and after it, where nothing is durable yet."""
    folder, device = _place(context)
    pause(folder, f"training-{device}")
    model = record_to_arrays(msg.content["arrays"])
    reply = call_next(msg, context)
    trained = record_to_arrays(reply.content["arrays"])
    update = {n: trained[n].astype(np.float64) - model[n] for n in model}
    data = io.BytesIO()
    np.savez(data, **update)
    write_whole(folder / f"computed-{device}-{KEY}", data.getvalue())
    return reply


app = ClientApp(mods=[what_was_sent, compression_mod, what_was_computed])


@app.train()
def train(msg, context):
    """Take a step from the model that was sent."""
    rng = np.random.default_rng(int(KEY))
    trained = {
        name: array + rng.normal(0, 0.01, array.shape).astype(array.dtype)
        for name, array in record_to_arrays(msg.content["arrays"]).items()
    }
    metrics = MetricRecord({"num-examples": 1000 + context.node_config["partition-id"]})
    content = RecordDict({"arrays": arrays_to_record(trained), "metrics": metrics})
    return Message(content, reply_to=msg)
