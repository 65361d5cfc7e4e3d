"""The demo's device, keeping a journal of what it computed and what it sent.

The journal's names: ``computed-DEVICE-KEY`` before the state is written, and
``sent-DEVICE-KEY-UPLOAD`` after it and before the reply leaves.
"""

import io
import time
from pathlib import Path

import numpy as np
from flwr.clientapp import ClientApp

from flwr_caesar.clients import compression_mod
from flwr_caesar.reference_app.caesar_app import client_app as demo
from flwr_caesar.transport import DeviceReport, record_to_arrays, record_to_frame

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
app.train()(demo.train)
